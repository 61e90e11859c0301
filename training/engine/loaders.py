"""The data loaders of a config."""

import contextlib

from training.config import HOMES
from training.engine.binding import construct, parameters_of
from training.engine.fitted import with_fitted
from utils import UserError, call, resolve


def make_loaders(config, source):
    """Returns {split: loader} of a config: "train", "validation" where one is held out, "test"."""
    loaders = {}
    for split in ("train", "validation", "test"):
        named = getattr(config.data_loader, split)
        if named is None:
            continue
        where = f"{source}: data_loader.{split}"
        loader = resolve(named.name, HOMES["data_loader"], f"{where}.name")
        args = with_fitted(named.args, loaders, f"{where}.args")
        args = construct(args, "data_loader", f"{where}.args")
        if not isinstance(args, dict):
            raise UserError(f"{where}.args: expected an object with argument names, got a list")
        if "seed" in parameters_of(loader) and "seed" not in args:
            args["seed"] = config.seed
        if takes_stratify := "stratify" in parameters_of(loader):
            args = {"stratify": config.data_loader.stratify} | args
        with _with_share(named.args, where):
            loaders[split] = call(loader, args, f"{where}.args")
        if split != "train" and loaders[split].validation() is not None:
            raise UserError(
                f"{where}.args: validation_split and folds hold out a part of the training data; "
                f"expected them in data_loader.train alone, or the {split} set is not evaluated "
                "as a whole"
            )
        if not (takes_stratify or config.data_loader.stratify) and split == "train":
            loaders[split].hold_out(stratify=False)
        if split != "train" and not getattr(loaders[split], "reads_everything", True):
            raise UserError(
                f"{where}.args: with sampler, examples_per_epoch or drop_last not every example of "
                f"the {split} set counts once; they are for data_loader.train"
            )
    held_out = loaders["train"].validation()
    if held_out is not None:
        if "validation" in loaders:
            raise UserError(
                f"{source}: data_loader.train.args: a validation_split or fold is held out, and "
                "there is data_loader.validation as well; expected one of the two"
            )
        loaders = {"train": loaders["train"], "validation": held_out, "test": loaders["test"]}
    for split, loader in loaders.items():
        loader.split = split  # for messages about its data
    return loaders


@contextlib.contextmanager
def _with_share(args, where):
    """Names the split, and the share of the data that it has, in the errors of its loader."""
    try:
        yield
    except UserError as error:
        if str(error).startswith(where):
            raise
        dataset = args.get("dataset") if isinstance(args, dict) else None
        of_dataset = dataset.get("args") if isinstance(dataset, dict) else None
        share = of_dataset.get("share") if isinstance(of_dataset, dict) else None
        raise UserError(f"{where}{f', share {share}' if share else ''}: {error}") from error
