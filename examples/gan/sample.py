"""Draws pictures with a trained generator.

python examples/gan/sample.py                                    the run written to last
python examples/gan/sample.py -w saved/MNIST_GAN/<run> --out digits.png
python examples/gan/sample.py -w RUN/checkpoint-epoch_4.params --rows 4 --columns 16 --seed 1
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `python FILE` looks beside FILE only

import utils
from training.config import read_config

# The run's code must be found before anything imports the template's: hence imports in functions.


def main(argv=None):
    """Runs the command line; returns the exit code."""
    options = parse_arguments(argv)
    try:
        pictures = generate(options.weights, options.rows * options.columns, options.seed)
        draw(pictures, options.rows, options.columns, options.out)
    except utils.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Look at {options.out}")
    return 0


def parse_arguments(argv):
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-w", "--weights", default="latest", metavar="PATH",
        help="a checkpoint, a run folder, or 'latest' (the default): the run written to last",
    )  # fmt: skip
    parser.add_argument("--out", default="samples.png", metavar="FILE")
    parser.add_argument("--rows", type=_at_least_one, default=8)
    parser.add_argument("--columns", type=_at_least_one, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the noise they are made from")
    return parser.parse_args(argv)


def generate(weights, count, seed):
    """Returns pictures that a run's network makes, by the run's own config and code.

    Args:
        weights: a checkpoint, a run folder (which stands for its latest checkpoint), or "latest".
        count: number of pictures.
        seed: of the noise.

    Returns:
        (count, channels, height, width) uint8

    Raises:
        UserError: there is no such run, or its network makes none.
    """
    from training.checkpoint.naming import find
    from training.checkpoint.reading import read
    from training.checkpoint.restore import network_params

    checkpoint = find(utils.latest_run("saved") if weights == "latest" else Path(weights))
    folder = checkpoint.parent
    utils.use_code_of(folder)
    config = read_config(folder / "config.json")
    arrays = network_params(read(checkpoint)[0])
    import jax
    import numpy as np

    from training.engine.build import build
    from training.engine.initialize import first_batch, restored_params

    experiment = build(config, folder / "config.json")
    params = restored_params(experiment, arrays, checkpoint)
    shape = first_batch(experiment)["inputs"].shape[1:]
    blank = np.zeros((count, *shape), np.uint8)  # real pictures to judge, which nobody asks about

    @jax.jit
    def images(params, key):
        outputs, _ = experiment.forward(
            params, blank, key, True
        )  # noise comes from a key in training
        if not isinstance(outputs, dict) or "images" not in outputs:
            raise utils.UserError(f"{checkpoint}: its network {config.model.name} makes no images")
        return outputs["images"]

    return np.rint(127.5 * (np.asarray(images(params, jax.random.key(seed))) + 1)).astype(np.uint8)


def draw(pictures, rows, columns, path):
    """Writes pictures side by side into a file.

    Args:
        pictures: (rows * columns, channels, height, width) uint8, of 1 channel or 3.
        path: the file, its ending says in which format.

    Raises:
        UserError: the file cannot be written.
    """
    from PIL import Image

    _, channels, height, width = pictures.shape
    grid = pictures.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    grid = grid.reshape(rows * height, columns * width, channels)
    try:
        Image.fromarray(grid[..., 0] if channels == 1 else grid).save(path)
    except (OSError, ValueError) as error:
        raise utils.UserError(f"{path}: cannot write a picture there: {error}") from None


def _at_least_one(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
