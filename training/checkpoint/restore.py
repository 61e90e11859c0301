"""Filling a tree from a checkpoint's arrays, strictly."""

import difflib
import re
from pathlib import Path
from typing import Any

import numpy as np

from training.checkpoint.naming import LISTED, listed
from training.checkpoint.reading import damaged, format_of
from utils import UserError

# Modules that import JAX are imported in functions: a network's parameters are read without it.

# How names of arrays begin in checkpoints of older versions, and how they begin now.
OLD_NAMES = {"average/": "ema_params/", "state/average/": "state/ema_params/"}


def restore_state(template: Any, arrays: dict[str, Any], path: Path, mesh: Any) -> Any:
    """Returns the state of a run's checkpoint on the devices, which it must fit exactly.

    `template` is the state's tree of shapes, `arrays` are from `read` with `for_devices`.
    """
    import jax

    from training.common.trees import named_leaves

    given = {current_name(name): name for name in arrays}
    state = restore(template, {name: arrays[old] for name, old in given.items()}, where=path)
    leaves = {given[name]: leaf for name, leaf in named_leaves(state).items()}
    try:
        placed = format_of(path).put_on_devices(path, leaves, mesh)
    except ValueError as error:
        raise damaged(path, error) from error
    return jax.tree.unflatten(jax.tree.structure(state), [placed[name] for name in leaves])


def restore(
    template: Any,
    arrays: dict[str, Any],
    prefix: str = "",
    partial: list[str] | None = None,
    where: object = "the checkpoint",
) -> Any:
    """Fills a tree like the template with a checkpoint's arrays, which must fit it exactly.

    Args:
        template: tree of arrays; the result has its structure, shapes, dtypes and devices.
        arrays: dict of name -> array, from `read`.
        prefix: the path of the template in the checkpoint, such as "params".
        partial: paths of the only parts to take, such as ["stem", "stage1/norm"]; the rest keeps
            the template's values. None takes everything.
        where: how an error names the checkpoint, such as its path.

    Raises:
        UserError: with a list of what is missing, not expected, or of another shape or dtype.
    """
    import jax

    from training.common.trees import named_leaves

    start = f"{prefix}/" if prefix else ""
    wanted = {start + name: leaf for name, leaf in named_leaves(template).items()}
    given = {name: array for name, array in arrays.items() if name.startswith(start)}
    names = list(wanted)
    if partial is not None:
        parts = [start + part.strip("/") for part in partial or [""]]  # [] is a mistake too
        _check_parts(parts, [*wanted, *given], where)
        wanted, given = _within(parts, wanted), _within(parts, given)
    _check_fit(wanted, given, where)

    def value(name, leaf):
        if name not in given:
            return leaf
        if not isinstance(leaf, jax.Array):
            return given[name]
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda at: given[name][at])

    leaves, structure = jax.tree.flatten(template)
    return jax.tree.unflatten(structure, map(value, names, leaves))


def network_params(arrays: dict[str, Any]) -> dict[str, Any]:
    """Returns the weights to evaluate with: their moving average if the run kept one.

    Args:
        arrays: dict of name -> array, from `read`.

    Returns:
        dict of name -> array, without the leading "params/": "stem/kernel".
    """
    arrays = {current_name(name): array for name, array in arrays.items()}
    params, ema_params = (
        {name.removeprefix(top): array for name, array in arrays.items() if name.startswith(top)}
        for top in ("params/", "ema_params/")
    )
    if not params:
        raise UserError(f"the checkpoint has no params, only {listed(arrays)}.")
    return params | ema_params


def current_name(name: str) -> str:
    """Returns the name that an array of a state has now."""
    for old, new in OLD_NAMES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _within(parts, named):
    return {
        name: leaf
        for name, leaf in named.items()
        if any(f"{name}/".startswith(f"{part}/") for part in parts)
    }


def _check_parts(parts, names, where):
    """Raises UserError for a part that contains no name."""
    paths = {name[: end.start()]: None for name in names for end in re.finditer("/|$", name)}
    for part in parts:
        if part not in paths:
            near = difflib.get_close_matches(part, paths, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {listed(paths)}."
            raise UserError(f"{where}: no part is named {part!r}; {hint}")


def _check_fit(wanted, given, where):
    """Raises UserError with a list of all that differs."""
    wanted = {name: _kind(leaf) for name, leaf in wanted.items()}
    given = {name: _kind(array) for name, array in given.items()}
    misfits = {"missing": [], "not expected": [], "different": []}
    for name in wanted | given:
        if name not in given:
            misfits["missing"].append(f"{name}: {wanted[name]}")
        elif name not in wanted:
            misfits["not expected"].append(f"{name}: {given[name]}")
        elif wanted[name] != given[name]:
            misfits["different"].append(f"{name}: {given[name]}, expected {wanted[name]}")
    lines = []
    for title, names in misfits.items():
        lines += [f"  {len(names)} {title}:"] * bool(names)
        lines += [f"    {name}" for name in names[:LISTED]] + ["    ..."] * (len(names) > LISTED)
    if lines:
        advice = "Use the config and the model code it was saved with, or take only parts that fit."
        raise UserError("\n".join([f"{where} does not fit.", *lines, advice]))


def _kind(leaf):
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    return f"{dtype} {np.shape(leaf)}"
