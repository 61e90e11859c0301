"""Continues a text with a trained network, character by character.

python examples/text/sample.py                                       the latest run
python examples/text/sample.py -w saved/Gospels/<run> --prompt "And it came to pass"
python examples/text/sample.py --characters 1000 --temperature 0.7 --seed 1
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `python FILE` looks beside FILE only

import utils
from training.common.kept_code import use_code_of
from training.config import read_config

# Imports in functions: the path to the run's own code must be set before they import `model`.


@utils.command
def main(argv=None):
    """Runs the command line."""
    for piece in write(parse_arguments(argv)):
        print(piece, end="", flush=True)
    print()


def parse_arguments(argv):
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-w", "--weights", default="latest", metavar="PATH",
        help="a checkpoint, a run folder, or 'latest' (the default): the latest run",
    )  # fmt: skip
    parser.add_argument("--prompt", default="\n", help="ASCII text to begin with")
    parser.add_argument("--characters", type=int, default=500, help="number of characters to write")
    parser.add_argument(
        "--temperature", type=float, default=0.8,
        help="0: always the most likely character; 1: the network's own probabilities",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trust", action="store_true", help="run the code of a run made elsewhere")
    return parser.parse_args(argv)


def write(options):
    """Yields the prompt, then the characters that a run's network adds to it, one by one.

    Args:
        options: weights, prompt, characters, temperature, seed and trust, see `parse_arguments`.

    Raises:
        UserError: there is no such run, its network writes no text, or an option is wrong.
    """
    from training.checkpoint.naming import find
    from training.checkpoint.reading import read
    from training.checkpoint.restore import network_params

    if not (options.prompt and options.prompt.isascii()):
        raise utils.UserError(
            f"--prompt: {options.prompt!r}; expected ASCII, one character or more"
        )
    if options.temperature < 0:
        raise utils.UserError(f"--temperature: {options.temperature}; expected 0 or more")
    weights = options.weights
    checkpoint = find(utils.latest_run("saved") if weights == "latest" else Path(weights), True)
    folder = checkpoint.parent
    use_code_of(folder, options.trust)
    config = read_config(folder / "config.json")
    arrays = network_params(read(checkpoint)[0])
    import jax
    import numpy as np

    from training.engine.build import build
    from training.engine.initialize import first_batch, restored_params

    experiment = build(config, folder / "config.json")
    batch = first_batch(experiment)["inputs"]
    if batch.ndim != 2 or batch.dtype != np.int32:
        raise utils.UserError(f"{checkpoint}: its network {config.model.name} writes no text")
    context = batch.shape[1]
    params = restored_params(experiment, arrays, checkpoint)

    @jax.jit
    def next_code(window, last, key):
        """Returns the character after position `last`, which does not depend on later ones."""
        logits = experiment.forward(params, window[None], None, False)[0][0, last]
        if options.temperature == 0:
            return logits.argmax()
        return jax.random.categorical(key, logits / options.temperature)

    codes = list(options.prompt.encode("ascii"))
    yield options.prompt
    for key in jax.random.split(jax.random.key(options.seed), options.characters):
        seen = codes[-context:]
        window = np.zeros(context, np.int32)
        window[: len(seen)] = seen
        codes.append(int(next_code(window, len(seen) - 1, key)))
        yield chr(codes[-1])


if __name__ == "__main__":
    sys.exit(main())
