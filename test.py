"""Evaluates a trained network on its test set.

python test.py                                  the run trained last: its best network
python test.py -w saved/MNIST_Sample/<run>      another run's
python test.py -w RUN --latest                  its latest checkpoint in place of the best
python test.py -w RUN/checkpoint-epoch_4.params --predictions
python test.py -w RUN --tta horizontal_flip     averaged over each picture and its mirror image
"""

import argparse
import sys
from pathlib import Path

import utils
from training.common.kept_code import add_options, use_code_of
from training.config import read_config

TABLE = "predictions.csv"

# The config is checked before JAX is imported, which takes a second: hence imports in functions.


@utils.command
def main(argv=None):
    """Runs the command line; returns the exit code."""
    return test(parse_arguments(argv))


def parse_arguments(argv):
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-w", "--weights", "--resume", default="latest", metavar="PATH",
        help="a checkpoint, a run folder, or 'latest' (the default): the run trained last",
    )  # fmt: skip
    parser.add_argument("-c", "--config", metavar="FILE", help="in place of the run's own config")
    parser.add_argument("--latest", action="store_true", help="the run's latest, not its best")
    parser.add_argument(
        "--predictions", nargs="?", const=TABLE, metavar="FILE",
        help=f"write what is predicted for each example into the run folder: {TABLE} by default; "
        "or .parquet, or .npz",
    )  # fmt: skip
    parser.add_argument(
        "--top-k", type=int, metavar="K", help="most likely classes in it; of more than 20 else 5"
    )
    parser.add_argument(
        "--tta", type=lambda names: names.split(","), default=(), metavar="VIEW,VIEW",
        help="average over views of the inputs as well: horizontal_flip, vertical_flip, half_turn",
    )  # fmt: skip
    add_options(parser)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    options = parser.parse_intermixed_args(argv)
    if options.predictions and "=" in options.predictions:  # an override follows the option
        options.overrides.insert(0, options.predictions)
        options.predictions = TABLE
    if options.top_k is not None and options.top_k < 1:
        parser.error(f"--top-k: expected at least 1, got {options.top_k}")
    return options


def test(options):
    """Evaluates, prints every metric and writes the report into the run folder."""
    from training.checkpoint.naming import find
    from training.checkpoint.reading import read
    from training.checkpoint.restore import network_params

    path = utils.latest_run("saved") if options.weights == "latest" else Path(options.weights)
    checkpoint = find(path, prefer_best=not options.latest)
    folder = checkpoint.parent
    use_code_of(folder, options.trust, options.own_code)
    config = read_config(options.config or folder / "config.json", options.overrides, options.allow)
    arrays = network_params(read(checkpoint)[0])
    log = utils.set_up_logging()
    if options.predictions:
        table = utils.optional_module("training.report.predictions", needed_by="--predictions")
        table.check_name(options.predictions)
    from training.engine.build import build
    from training.engine.compilation import use_compilation_cache
    from training.engine.evaluation import Predictions, predict, write_report
    from training.engine.initialize import restored_params
    from training.engine.out_of_memory import explain_out_of_memory

    if config.training.compilation_cache:
        use_compilation_cache()
    experiment = build(config, options.config or folder / "config.json", views=options.tta)
    log.info("Evaluating %s", checkpoint)
    params = restored_params(experiment, arrays, checkpoint)
    with explain_out_of_memory(config):
        results, predictions = predict(
            experiment, params, options.top_k, values=bool(options.predictions)
        )
    classified = predictions if isinstance(predictions, Predictions) else None
    if classified:
        classified = classified._replace(
            source=f"the test set, {checkpoint.name}{', '.join(['', *options.tta])}"
        )
    for name, value in results.items():
        log.info("%s @ %s", name.removeprefix("test_"), value)
    if report := write_report(config, folder, experiment, params, classified):
        log.info("Look at %s", report)
    if options.predictions:
        if predictions is None:
            raise utils.UserError("--predictions: a target of the test set is no class")
        table.write_predictions(folder / options.predictions, predictions)
        log.info("Predictions in %s", folder / options.predictions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
