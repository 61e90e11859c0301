"""Which array of another program's file is which parameter of a network."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.checkpoint.foreign import as_float32, open_foreign
from training.weights.layouts import (
    Lazy,
    arrange,
    choose,
    fitting_layouts,
    grids,
    resize,
)
from training.weights.names import Target, leaf_names, normal, translate
from training.weights.rows import Row, natural, suggest, table
from utils import UserError, nearest

LISTED = 10
LOG = logging.getLogger("main")


def map_file(
    path: Path, template: Mapping[str, Any], sources: Mapping, rename: Mapping[str, str | None]
) -> tuple[dict[str, Lazy], list[Row], dict[str, str], str]:
    """Returns `map_arrays` of a file, the first of `suggest`, and a hint at both, or "".

    Args:
        path: of a safetensors file, or of an index of such.
        template: {path: parameter}, each with a shape.
        sources: {source: names of its parts}, the NAMES of the network's file.
        rename: more of such names, which are first.
    """
    arrays = open_foreign(path)
    _check_rename(rename, arrays, path)
    source, names = choose_source(arrays, template, sources, rename)
    values, rows = map_arrays(arrays, template, names, path)
    if source:
        LOG.info("Its names are taken for those of %s", source)
    LOG.debug("What becomes of the arrays of %s:\n%s", path, table(rows))
    for row in rows:
        if row.layout == "resized":
            LOG.warning("%s %s is interpolated to %s", *row.sources, *row.shapes, row.shape)
    sure, near = suggest(rows)
    hint = f'By its shapes, this may be meant: "rename": {json.dumps(sure)}. ' if sure else ""
    for part, others in near.items():
        hint += f"{part} may be {' or '.join(others)}. "
    return values, rows, sure, hint


def map_arrays(
    arrays: Mapping[str, np.ndarray], template: Mapping[str, Any], names: Mapping, path: Path
) -> tuple[dict[str, Lazy], list[Row]]:
    """Returns the parameters by path, and a row for each parameter and each array left over.

    Args:
        arrays: {name in the file: array}, of `open_foreign`.
        template: {path: parameter}, each with a shape.
        names: what other names stand for, see training/weights/__init__.py.
        path: of the file, for messages.

    Raises:
        UserError: two arrays are meant for one parameter.
    """
    rows = _rows(arrays, {name: tuple(leaf.shape) for name, leaf in template.items()}, names, path)
    others = _other_layouts(rows)
    rows = [_with_layout(row, others) for row in rows]
    values = {}
    for row in rows:
        if row.sources and row.problem != "not needed":
            values[row.target] = _value(row, [arrays[name] for name in row.sources], path)
    return values, rows


def refuse_ambiguous(rows: list[Row], taken: Mapping, path: Path) -> None:
    """Raises UserError for parameters of which it is not known how the file stores them.

    `taken` contains the parameters that are to be used.
    """
    rows = [row for row in rows if row.problem == "ambiguous" and row.target in taken]
    if rows:
        (source, *_), target = rows[0].sources, rows[0].target.rpartition("/")[0]
        lines = [f"    {' + '.join(row.sources)} {row.shape}" for row in rows[:LISTED]]
        raise UserError(
            "\n".join([f"{path}: is this (inputs, outputs) or the other way round?", *lines])
            + "\nThe shape fits in both, and neither its name nor the file's other arrays tell. "
            f'Say which: "rename": {{"{source.rpartition(".")[0]}": "{target}:as-is"}}, '
            f'or "{target}:transposed"'
        )


def choose_source(
    arrays: Mapping, template: Mapping, sources: Mapping[str, Mapping], rename: Mapping
) -> tuple[str, dict]:
    """Returns the name of the source of a file, and the names of its parts here.

    It is the one of `sources` (see __init__.py) by which most arrays have a place; "" if none does
    better than their own names.
    """

    def places(names):
        found = (translate(name, names) for name in arrays)
        found = [_place(one.name, template) for targets in found for one in targets or ()]
        return sum(one in template for one in found)

    maps = {"": dict(rename)} | {name: {**rename, **one} for name, one in sources.items()}
    best = max(maps, key=lambda name: places(maps[name]))
    return best, maps[best]


def _check_rename(rename: Mapping, arrays: Mapping, path: Path) -> None:
    """Refuses a path of `rename` that fits no array of the file."""
    for left in rename:
        for one in left.split("+"):
            if not any(translate(name, {one: None}) is not None for name in arrays):
                known = {normal(name).rpartition("/")[0]: None for name in arrays}
                raise UserError(
                    f'{path}: "rename": no part is named {left!r}{nearest(one, known)}; there are '
                    f"{', '.join([*known][:LISTED])}"
                )


def _rows(arrays, template, names, path):
    """Returns the rows without their layouts."""
    found, rows = {}, []
    for name in sorted(arrays, key=natural):
        shape = tuple(arrays[name].shape)
        targets = translate(name, names)
        if targets is None:
            targets = [Target(normal(name), (0, 1), (0, 1), "")]
        if not targets:
            rows.append(Row((name,), normal(name), (shape,), None, "", (0, 1), "not needed"))
        for target in targets:
            found.setdefault(_place(target.name, template), []).append((name, shape, target))
    for place, given in found.items():
        given.sort(key=lambda one: one[2].join)
        sources, shapes, targets = zip(*given, strict=True)
        parts = [target.join for target in targets]
        if parts != [(index, len(parts)) for index in range(len(parts))]:
            raise UserError(
                f"{path}: {' and '.join(sources)} are for {place}, which takes {parts[0][1]} array"
            )
        problem = "" if place in template else "extra"
        rows.append(
            Row(sources, place, shapes, template.get(place), targets[0].layout, targets[0].share,
                problem)
        )  # fmt: skip
    missing = [name for name in template if name not in found]
    return rows + [Row((), name, (), template[name], "", (0, 1), "missing") for name in missing]


def _place(name, template):
    return next((one for one in leaf_names(name) if one in template), name)


def _whole(row):
    """The shape here of each of a row's sources."""
    *first, last = row.shape or (1,)
    last = last * row.share[1] // max(len(row.sources), 1)
    return (*first, last) if row.shape else ()


def _fits(row):
    """The layouts in which all sources of a row have the shape they need."""
    leaf = normal(row.sources[0]).rpartition("/")[2]
    return [
        layout
        for layout in fitting_layouts(row.shapes[0], _whole(row), leaf)
        if all(layout in fitting_layouts(shape, _whole(row), leaf) for shape in row.shapes)
    ]


def _other_layouts(rows):
    """{(name of an array, number of axes): layouts of those whose shape tells}."""
    others = {}
    for row in rows:
        if row.sources and not row.problem and not row.layout:
            layouts, key = _fits(row), _kind(row)
            tells = len(layouts) == 1 and sum(size > 1 for size in row.shape) > 1
            if tells and key[2] not in ("table", "embedding"):
                others.setdefault(key[:2], set()).update(layouts)
    return others


def _kind(row):
    leaf = normal(row.sources[0]).rpartition("/")[2]
    return leaf, len(row.shapes[0]), row.target.rpartition("/")[2]


def _with_layout(row, others):
    if not row.sources or row.problem:
        return row
    (leaf, axes, target_leaf), layouts = _kind(row), _fits(row)
    if row.layout:  # the map says it
        layouts = [one for one in layouts if one == row.layout or layouts == ["as-is"]]
    if layouts:
        layout = choose(layouts, leaf, target_leaf, others.get((leaf, axes), set()))
        return row._replace(layout=layout or "", problem="" if layout else "ambiguous")
    if len(row.sources) == 1 and grids(leaf, row.shapes[0], row.shape):
        return row._replace(layout="resized")
    return row._replace(layout="", problem="other shape")


def _value(row, arrays, path):
    """The Lazy of a row; of one with a problem, its first array as it is stored."""
    arrays = [np.asarray(array) for array in arrays]
    small = arrays[0].dtype.kind not in "iub"
    dtype = np.dtype(np.float32) if small else arrays[0].dtype
    if row.problem:
        return Lazy(arrays[0].shape, dtype, lambda: as_float32(arrays[0], row.sources[0], path))

    def make():
        if row.layout == "resized":
            leaf = normal(row.sources[0]).rpartition("/")[2]
            whole = resize(arrays[0], *grids(leaf, row.shapes[0], row.shape)).reshape(row.shape)
        else:
            pieces = [arrange(array, row.layout).reshape(_whole(row)) for array in arrays]
            whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, -1)
        index, count = row.share
        width = whole.shape[-1] // count if count > 1 else 0
        part = whole[..., index * width : (index + 1) * width] if count > 1 else whole
        return as_float32(part, " + ".join(row.sources), path)

    return Lazy(row.shape, dtype, make)
