"""What a data set learned from its training file, such as the categories of a table's columns.

A data set has it as `fitted`, a dict that JSON can hold. Those of the other splits are given that
of the training data, where they take an argument of that name. A run keeps it in its config, for
`--resume`, test.py and whatever else builds its data again.
"""

from training.config import HOMES, Config, is_named
from training.engine.binding import parameters_of
from utils import resolve


def with_fitted(args, loaders, where):
    """Returns a loader's arguments from the config, its data set's with the training data's fitted.

    `loaders` are those there are already, by split.
    """
    dataset = args.get("dataset") if isinstance(args, dict) else None
    fitted = getattr(loaders["train"].dataset, "fitted", None) if "train" in loaders else None
    if fitted is None or not is_named(dataset) or not isinstance(dataset.get("args"), dict):
        return args
    function = resolve(dataset["name"], HOMES["data_loader"], f"{where}.dataset.name")
    if "fitted" not in parameters_of(function):
        return args
    return args | {"dataset": dataset | {"args": {"fitted": fitted} | dataset["args"]}}


def keep_fitted(config, experiment):
    """Returns the config with what the training data's data set learned."""
    values = config.model_dump()
    args = values["data_loader"]["train"]["args"]
    kept = with_fitted(args, experiment.loaders, "data_loader.train.args")
    if kept is args:
        return config
    values["data_loader"]["train"]["args"] = kept
    return Config.model_validate(values)
