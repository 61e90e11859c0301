"""Whether what a config monitors is something that its evaluations measure."""

import warnings

import jax
import numpy as np

from training.common.measure import loss_name, named_numbers
from training.engine.splits import stored_batch
from training.engine.step import eval_params
from training.engine.user_code import explained
from utils import UserError, nearest


def check_monitor(config, experiment, source):
    """Refuses a training.monitor that is not measured.

    Names that only a metric's result has are compared after the first evaluation.
    """
    if config.training.monitor is None:
        if config.training.early_stop is not None:
            raise UserError(
                f"{source}: training.early_stop needs training.monitor, what is to get better: "
                "'min validation_loss', with data_loader.train.args.validation_split=0.1"
            )
        return
    sense, _, name = config.training.monitor.partition(" ")
    where = f"{source}: training.monitor"
    if sense not in ("min", "max"):
        got = config.training.monitor
        raise UserError(f"{where}: expected 'min NAME' or 'max NAME', got {got!r}")
    losses = [loss_name(group) for group in experiment.groups]
    numbers = losses + [metric for metric in experiment.metrics if metric != "confusion_matrix"]
    splits = ["epoch_train", *(split for split in experiment.loaders if split != "train")]
    if name in [f"{split}_{number}" for split in splits for number in numbers]:
        return
    if name in [f"{split}_{one}" for split in splits[1:] for one in experiment.over_the_epoch]:
        return
    numbers, complete = _measured_names(experiment)
    known = [f"{split}_{number}" for split in splits for number in numbers]
    if name not in known and (complete or not name.startswith(tuple(splits))):
        hint = nearest(name, known)
        raise UserError(f"{where}: no {name!r} is measured{hint}; there are {', '.join(known)}")


def _measured_names(experiment):
    """Returns the names of the numbers that are measured, and whether there can be no others."""
    batch = stored_batch(experiment)
    with explained():
        state = jax.eval_shape(experiment.init, batch)
        measured, _ = jax.eval_shape(experiment.evaluate, eval_params(state), batch)
    measured.pop("finite")
    names, complete = list(experiment.over_the_epoch), not experiment.over_the_epoch
    for name, (total, _) in measured.items():
        compute = experiment.aggregates.get(name)
        if compute is None:
            names.append(name)
            continue
        shape = getattr(total, "table", np.shape(total)[int(experiment.seeds > 1) :])
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
                result = named_numbers(name, compute(np.zeros(shape), 0.0))
            names += [key for key, one in result.items() if np.ndim(one) == 0]
        except Exception:  # of nothing it has no result
            complete = False
    return names, complete
