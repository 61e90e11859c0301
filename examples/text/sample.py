"""Continues a text with a trained network, character by character or token by token.

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
    parser.add_argument("--prompt", default="\n", help="text to begin with")
    parser.add_argument("--characters", type=int, default=500, help="characters or tokens to write")
    parser.add_argument(
        "--temperature", type=float, default=0.8,
        help="0: always the most likely character; 1: the network's own probabilities",
    )  # fmt: skip
    parser.add_argument("--top-k", type=int, help="choose among so many most likely ones only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trust", action="store_true", help="run the code of a run made elsewhere")
    return parser.parse_args(argv)


def write(options):
    """Yields the prompt, then the characters that a run's network adds to it, one by one.

    Args:
        options: what `parse_arguments` returns.

    Raises:
        UserError: there is no such run, its network writes no text, or an option is wrong.
    """
    from training.checkpoint.naming import find
    from training.checkpoint.reading import read
    from training.checkpoint.restore import network_params

    if not options.prompt:
        raise utils.UserError("--prompt: expected one character or more")
    if options.top_k is not None and options.top_k < 1:
        raise utils.UserError(f"--top-k: {options.top_k}; expected 1 or more")
    if options.temperature < 0:
        raise utils.UserError(f"--temperature: {options.temperature}; expected 0 or more")
    weights = options.weights
    checkpoint = find(utils.latest_run("saved") if weights == "latest" else Path(weights), True)
    folder = checkpoint.parent
    use_code_of(folder, options.trust)
    config = read_config(folder / "config.json")
    arrays = network_params(read(checkpoint)[0])
    import jax

    from examples.text.generate import generate
    from training.engine.build import build
    from training.engine.initialize import restored_params

    experiment = build(config, folder / "config.json")
    dataset = experiment.loaders["train"].dataset
    if not (config.model.name.endswith(":writer") and hasattr(dataset, "decode")):
        raise utils.UserError(f"{checkpoint}: its network {config.model.name} writes no text")
    params = restored_params(experiment, arrays, checkpoint)
    codes, written = dataset.encode(options.prompt), ""
    added = generate(
        params, codes, options.characters, jax.random.key(options.seed),
        config.model.args.get("heads", 4), options.temperature, options.top_k,
    )  # fmt: skip
    yield options.prompt
    for count, code in enumerate(added, 1):
        codes.append(code)
        text = dataset.decode(codes[-count:])
        if not text.endswith("\ufffd"):  # else the bytes of a character are not complete
            yield text[len(written) :]
            written = text


if __name__ == "__main__":
    sys.exit(main())
