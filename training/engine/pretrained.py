"""The weights a run begins with: a checkpoint's, or those of a file that another program wrote."""

import logging
import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from training.checkpoint.foreign import in_folder, is_foreign, read_foreign
from training.checkpoint.naming import find, listed
from training.checkpoint.reading import read
from training.checkpoint.restore import fitting, network_params, restore
from training.common.trees import expect_part, fits, named_leaves, pick, split
from training.config import HOMES
from training.engine.binding import construct
from training.engine.parts import freeze
from training.engine.user_code import FAULTS, reason_of
from utils import UserError, nearest, optional_module, resolve

LOG = logging.getLogger("main")
WITHOUT_MAPPING = (
    "What would find the places of another program's weights, training/weights/, is not part of "
    "this project. "
)
ADVICE = (
    'Take all that fits by "partial": true, the parts that you name: "partial": ["stem"], or all '
    'but those: "except": ["head"].'
)


class Weights(NamedTuple):
    """What a run begins with: arrays of a file, by the paths of the parameters they are for."""

    path: Path
    arrays: dict  # what `np.asarray` makes arrays of
    partial: list[str] | None  # paths of those to take; None: all, and they must all fit
    left: list[str]  # parameters that keep their values
    rows: list  # of training.weights.mapping, for a file of another program
    names: dict[str, str]  # {part of the file: part of the network} that its shapes propose
    hint: str  # at these and other names that may be meant


def pretrained_state(experiment, state, config):
    """Returns a TrainState with the weights of the config's training.checkpoint, if it names one.

    Raises:
        UserError: there is no such file, or it does not fit the network.
    """
    if not config.training.checkpoint:
        return state
    seeds = range(experiment.seeds) if experiment.seeds > 1 else ()
    params = pick(state.params, 0) if seeds else state.params
    weights = read_weights(config.model, config.training.checkpoint, params)
    if seeds:
        each = [fill(pick(state.params, seed), weights) for seed in seeds]
        params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    else:
        params = fill(state.params, weights)
    LOG.info("Pre-trained parameters from %s", weights.path)
    if weights.left:
        LOG.warning("Not in it, of another shape, or left out, so trained from the start: %s",
                    listed(weights.left))  # fmt: skip
    if state.ema_params is None:
        return state._replace(params=params)
    trained, _ = split(freeze(params, experiment.parts.freeze)[0])
    return state._replace(params=params, ema_params=trained)


def read_weights(model, wanted, params):
    """Returns the Weights of a config's training.checkpoint, `wanted`, for a network's params."""
    path, arrays, *found = _weights(model, wanted, params)
    rows, names, hint = found or ([], {}, "" if _mapping() else WITHOUT_MAPPING)
    partial, left = wanted.partial, []
    if wanted.except_:
        arrays, partial, left = _all_but(wanted.except_, params, arrays, partial, path)
    if partial is True:
        partial, others = fitting(params, arrays, path)
        left += [name for name in others if name not in left]
    if rows:
        taken = [name for name in arrays if partial is None or fits(name, partial, below=True)]
        _mapping().refuse_ambiguous(rows, taken, path)
    return Weights(path, arrays, partial, left, rows, names, hint)


def fill(params, weights):
    """Returns the parameters with the values of the Weights."""
    return restore(
        params, weights.arrays, partial=weights.partial, where=weights.path,
        advice=weights.hint + ADVICE * ('"except"' not in weights.hint),
    )  # fmt: skip


def names_of(model):
    """Returns what others call the parts of a config's network, {source: names}.

    It is the NAMES of its file, of those of the functions among its arguments, and of those that
    these files import from.
    """
    network = resolve(model.name, HOMES["model"], "model.name")
    args = construct(model.args, "model", "model.args")
    files = [_module(one) for one in (network, *jax.tree.leaves(args))]
    files += [_module(one) for file in files if file for one in vars(file).values()]
    return {
        f"{source} ({file.__name__.rpartition('.')[2]})": names
        for file in dict.fromkeys(filter(None, files))
        for source, names in getattr(file, "NAMES", {}).items()
    }


def _module(value):
    """The module that a value is, or a function comes from, or None."""
    if isinstance(value, ModuleType):
        return value
    return sys.modules.get(value.__module__) if isinstance(value, FunctionType) else None


def _mapping():
    return optional_module("training.weights.mapping")


def _weights(model, wanted, params):
    """Returns the path of the file, and its arrays by the paths here; and more of `map_file`."""
    path = find(in_folder(Path(wanted.path)), prefer_best=True)
    foreign = is_foreign(path)
    if foreign:
        LOG.info("%s was not written here: it has no checksums, so no damage is noticed", path)
    if foreign and _mapping() and wanted.convert is None:
        named = named_leaves(params)
        return path, *_mapping().map_file(
            path, named, names_of(model), wanted.rename, wanted.partial
        )
    arrays = read_foreign(path) if foreign else network_params(read(path)[0])
    if wanted.convert is not None:
        arrays = _converted(wanted, path, arrays)
    return path, _rename(arrays, wanted.rename, path)


def _converted(wanted, path, arrays):
    """Returns the arrays that the config's function makes of those in the file, by name."""
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
    return converted


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
        if not old or names[old] is not None:
            renamed[(names[old] + name.removeprefix(old)) if old else name] = array
    return renamed
