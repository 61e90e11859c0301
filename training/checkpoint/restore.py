"""Filling a tree from a checkpoint's arrays, strictly."""

import difflib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from training.checkpoint.naming import LISTED, listed
from training.checkpoint.reading import damaged, format_of
from utils import UserError

# Modules that import JAX are imported in functions: a network's parameters are read without it.

ADVICE = "Use the config and the model code it was saved with, or take only parts that fit."
THREADS = 4
# How names of arrays begin in checkpoints of older versions, and how they begin now.
OLD_NAMES = {"average/": "ema_params/", "state/average/": "state/ema_params/"}


def restore_state(template: Any, arrays: dict[str, Any], path: Path, mesh: Any) -> Any:
    """Returns the state of a run's checkpoint on the devices, which it must fit exactly.

    `template` is the state's tree of shapes, `arrays` are from `read` with `for_devices`.
    """
    import jax

    from training.common.trees import named_leaves

    given = {current_name(name): name for name in arrays}
    renamed = {name: arrays[old] for name, old in given.items()}
    state = restore(template, renamed, where=path, advice=_resume_advice(template, renamed, path))
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
    advice: str = ADVICE,
) -> Any:
    """Fills a tree like the template with a checkpoint's arrays, which must fit it exactly.

    Args:
        template: tree of arrays; the result has its structure, shapes, dtypes and devices.
        arrays: dict of name -> array, from `read`.
        prefix: the path of the template in the checkpoint, such as "params".
        partial: paths of the only parts to take, such as ["stem", "stage1/norm"]; the rest keeps
            the template's values. None takes everything.
        where: how an error names the checkpoint, such as its path.
        advice: what an error says at its end.

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
        if not partial:
            raise UserError(
                f'{where}: "partial": [] takes nothing; expected the paths of parts, as in '
                '["stem"], true for all that fits, or null for all, which must fit'
            )
        parts = [start + part.strip("/") for part in partial]
        _check_parts(parts, [*wanted, *given], where)
        hint = _renamed(wanted, given)
        wanted, given = _within(parts, wanted), _within(parts, given)
    else:
        hint = _renamed(wanted, given)
    _check_fit(wanted, given, where, advice if '"rename"' in advice else hint + advice)

    def value(name, leaf):
        if name not in given:
            return leaf
        array = given[name]
        if hasattr(array, "__array__"):  # not the shape of one that is read later
            array = np.asarray(array)
        if not isinstance(leaf, jax.Array):
            return array
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda at: array[at])

    leaves, structure = jax.tree.flatten(template)
    with ThreadPoolExecutor(THREADS) as pool:  # copies of arrays of other layouts take time
        return jax.tree.unflatten(structure, pool.map(value, names, leaves))


def fitting(template: Any, arrays: dict[str, Any], where: object) -> tuple[list[str], list[str]]:
    """Returns the names of the template's arrays that a checkpoint has alike, and of the others.

    Raises:
        UserError: none of them fits; see `restore` for the arguments.
    """
    from training.common.trees import named_leaves

    wanted = {name: _kind(leaf) for name, leaf in named_leaves(template).items()}
    given = {name: _kind(array) for name, array in arrays.items()}
    fit = [name for name, kind in wanted.items() if given.get(name) == kind]
    if not fit:
        advice = _renamed(wanted, given) + "Nothing of it fits this network."
        _check_fit(wanted, given, where, advice)
    return fit, [name for name in wanted if name not in fit]


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
    from training.common.trees import fits

    return {name: leaf for name, leaf in named.items() if fits(name, parts, below=True)}


def _check_parts(parts, names, where):
    """Raises UserError for a part that contains no name."""
    from training.common.trees import fits

    paths = {name[: end.start()]: None for name in names for end in re.finditer("/|$", name)}
    for part in parts:
        if not any(fits(path, (part,)) for path in paths):
            near = difflib.get_close_matches(part, paths, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {listed(paths)}."
            raise UserError(f"{where}: no part is named {part!r}; {hint}")


def _resume_advice(template, arrays, path):
    """What to do about a run's checkpoint that does not fit what the run is now."""
    from training.common.trees import named_leaves

    wanted, given = (
        {name: _kind(leaf) for name, leaf in leaves.items() if name.startswith("params/")}
        for leaves in (named_leaves(template), arrays)
    )
    if wanted == given:
        return (
            "The weights fit, the state of the optimizer (or their moving average) does not. To "
            "keep the weights and start a new optimizer, begin a new run, without --resume, "
            f"with training.checkpoint={path}"
        )
    return (
        "Use the config and the model code it was saved with; or, for all that fits of it, begin a "
        f'new run, without --resume, with \'training.checkpoint={{"path": "{path}", '
        '"partial": true}\''
    )


def _renamed(wanted, given):
    """A hint at parts that are there under another name, with the same shapes, or ""."""
    missing, extra = (
        _parts_of({name: _kind(leaf) for name, leaf in one.items() if name not in other})
        for one, other in ((wanted, given), (given, wanted))
    )
    found = {}
    for path, kinds in missing.items():
        alike = [other for other, known in extra.items() if known == kinds]
        inner = any(path.startswith(f"{outer}/") for outer in found)
        if alike and not inner:
            found[path] = (difflib.get_close_matches(path, alike, 1, 0) or alike)[0]
    pairs = [f'"{old}": "{new}"' for new, old in list(found.items())[:LISTED]]
    return f'By its shapes, a part was renamed: "rename": {{{", ".join(pairs)}}}. ' if pairs else ""


def _parts_of(kinds):
    """{path of a part: {name of an array within it: its kind}}."""
    parts = {}
    for name, kind in kinds.items():
        for slash in re.finditer("/", name):
            parts.setdefault(name[: slash.start()], {})[name[slash.end() :]] = kind
    return parts


def _check_fit(wanted, given, where, advice):
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
        raise UserError("\n".join([f"{where} does not fit.", *lines, advice]))


def _kind(leaf):
    if isinstance(leaf, str):
        return leaf
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    return f"{dtype} {np.shape(leaf)}"
