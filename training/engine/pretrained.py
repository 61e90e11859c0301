"""The weights a run begins with: a checkpoint's, or those of a file that another program wrote."""

import logging

import jax
import jax.numpy as jnp
import numpy as np

from training.checkpoint.foreign import is_foreign, read_foreign
from training.checkpoint.naming import find, listed
from training.checkpoint.reading import read
from training.checkpoint.restore import fitting, network_params, restore
from training.common.trees import expect_part, fits, named_leaves, pick, split
from training.config import HOMES
from training.engine.parts import freeze
from training.engine.user_code import FAULTS, reason_of
from utils import UserError, nearest, resolve

LOG = logging.getLogger("main")
ADVICE = (
    'Take all that fits by "partial": true, the parts that you name: "partial": ["stem"], or all '
    'but those: "except": ["head"].'
)


def pretrained_state(experiment, state, config):
    """Returns a TrainState with the weights of the config's training.checkpoint, if it names one.

    Raises:
        UserError: there is no such file, or it does not fit the network.
    """
    wanted = config.training.checkpoint
    if not wanted:
        return state
    path, arrays = _weights(wanted)
    arrays = _rename(arrays, wanted.rename, path)
    params = state.params if experiment.seeds == 1 else pick(state.params, 0)
    partial, left = wanted.partial, []
    if wanted.except_:
        arrays, partial, left = _all_but(wanted.except_, params, arrays, partial, path)
    if partial is True:
        partial, others = fitting(params, arrays, path)
        left += [name for name in others if name not in left]

    def pretrained(params):
        return restore(params, arrays, partial=partial, where=path, advice=ADVICE)

    if experiment.seeds == 1:
        params = pretrained(state.params)
    else:
        each = [pretrained(pick(state.params, seed)) for seed in range(experiment.seeds)]
        params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    LOG.info("Pre-trained parameters from %s", path)
    if left:
        LOG.warning("Not in it, of another shape, or left out, so trained from the start: %s",
                    listed(left))  # fmt: skip
    if state.ema_params is None:
        return state._replace(params=params)
    trained, _ = split(freeze(params, experiment.parts.freeze)[0])
    return state._replace(params=params, ema_params=trained)


def _weights(wanted):
    """Returns the path of the file, and its arrays by name, converted where there is a function."""
    path = find(wanted.path, prefer_best=True)
    arrays = read_foreign(path) if is_foreign(path) else network_params(read(path)[0])
    if wanted.convert is None:
        return path, arrays
    convert = resolve(wanted.convert.name, HOMES["model"], "training.checkpoint.convert.name")
    try:
        tree = convert(arrays, **wanted.convert.args)
        converted = {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}
    except FAULTS as error:
        raise UserError(
            f"training.checkpoint.convert: {wanted.convert.name} of {path}: {reason_of(error)}. It "
            "gets {name: array} and returns the network's parameters, nested dicts of arrays. The "
            f"file has {listed(arrays)}"
        ) from error
    if not converted or any(array.dtype.kind in "OUS" for array in converted.values()):
        raise UserError(
            f"training.checkpoint.convert: {wanted.convert.name} returned {type(tree).__name__} of "
            f"{listed(converted)}; expected nested dicts of arrays, the network's parameters"
        )
    return path, converted


def _all_but(paths, params, arrays, partial, where):
    """Returns the arrays without those left out, what to take of the rest, and the names left out.

    What is left out may be missing in the file, or in the network, or have any shape.
    """
    names = list(dict.fromkeys([*named_leaves(params), *arrays]))
    for path in paths:
        expect_part(path, names, f'{where}: "except"', "in the file or the network")

    def taken(name):
        return not fits(name, paths, below=True)

    if isinstance(partial, list):
        names = [name for name in names if fits(name, partial, below=True)]
    if not (rest := [name for name in names if taken(name)]):
        raise UserError(f'{where}: "except": {", ".join(paths)} leaves nothing to take')
    left = [name for name in named_leaves(params) if not taken(name)]
    kept = {name: array for name, array in arrays.items() if taken(name)}
    return kept, (True if partial is True else rest), left


def _rename(arrays, names, where):
    """Returns a checkpoint's arrays with other names for some of its parts, {"old": "new"}."""
    renamed = {}
    for old in names:
        if not any(f"{name}/".startswith(f"{old}/") for name in arrays):
            parts = dict.fromkeys(name.partition("/")[0] for name in arrays)
            raise UserError(
                f'{where}: "rename": no part is named {old!r}{nearest(old, parts)}; there are '
                f"{listed(parts)}"
            )
    for name, array in arrays.items():
        old = next((old for old in names if f"{name}/".startswith(f"{old}/")), "")
        renamed[(names[old] + name.removeprefix(old)) if old else name] = array
    return renamed
