"""A run that is resumed with another `training.freeze` than its checkpoint was saved with."""

import logging

import jax
import numpy as np

from training.checkpoint.naming import listed
from training.common.trees import named_leaves
from training.engine.step import state_of
from utils import UserError

OF_TRAINED = ("optimizers/", "ema_params/")  # what only trained parameters have
LOG = logging.getLogger("main")


def with_other_frozen(experiment, template, arrays, checkpoint):
    """Returns a checkpoint's arrays as they are with the parts that are frozen now.

    What the optimizer keeps for each parameter, and the moving average, start again for
    parameters that were frozen, and are left out for those that are frozen now. Where more differs
    than that, the arrays are returned as they are.

    Args:
        experiment: the Experiment.
        template: TrainState of shapes.
        arrays: {current name: array} of the checkpoint.
        checkpoint: its path, for messages.
    """
    wanted = named_leaves(template)
    params = {name: arrays.get(name) for name in wanted if name.startswith("params/")}
    then, now = (_slots(names, params) for names in (arrays, wanted))
    if then == now or then.keys() != now.keys() or any(one is None for one in params.values()):
        return arrays
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise UserError(
            f"{checkpoint}: a checkpoint of devices.orbax cannot be resumed with another "
            "training.freeze; begin a new run, without --resume, with "
            f"training.checkpoint={checkpoint}"
        )
    begun = _begin(experiment, template, params)
    kept = {
        name: one for name, one in arrays.items()
        if name in wanted or not name.startswith(OF_TRAINED)
    }  # fmt: skip
    made = {name: np.asarray(one) for name, one in begun.items() if name not in kept}
    LOG.warning("Frozen from here on: %s", ", ".join(experiment.parts.freeze) or "nothing")
    if made:
        LOG.warning(
            "Of what was frozen, the state of the optimizer starts again (%s). It counts its "
            "updates on, so with Adam the first hundred or so of these parts may be several times "
            "as large; a lower rate for them (training.learning_rates), or a new run from this "
            "checkpoint (training.checkpoint), avoids that", listed(made),
        )  # fmt: skip
    return kept | made


def _begin(experiment, template, params):
    """Returns {name: array} of what is kept of the trained parameters when training begins."""

    def begun(params):
        state = state_of(params, experiment.groups, template.ema_params, experiment.parts.freeze)
        return {"optimizers": state.optimizers, "ema_params": state.ema_params}

    tree = jax.tree.unflatten(jax.tree.structure(template.params), params.values())
    return named_leaves((begun if experiment.seeds == 1 else jax.vmap(begun))(tree))


def _slots(names, params):
    """{what it is: which parameters have it}, such as optimizers/network/mean: {stem/kernel}."""
    known = {name.removeprefix("params/") for name in params}
    slots = {}
    for name in names:
        if not name.startswith(OF_TRAINED):
            continue
        parts = name.split("/")
        ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
        end = next((end for end in ends if end in known), None)
        if end:
            slots.setdefault(name.removesuffix(end), set()).add(end)
    return slots
