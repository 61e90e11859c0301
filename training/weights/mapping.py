"""Which array of another program's file is which parameter of a network."""

import itertools
import json
import logging
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.checkpoint.foreign import FLOAT32, as_float32, is_floating, open_foreign
from training.common.trees import fits
from training.weights.layouts import (
    Lazy,
    arrange,
    choose,
    fitting_layouts,
    grids,
    resize,
)
from training.weights.names import OPTIONAL, Target, leaf_names, nest, normal, translate
from training.weights.rows import Row, misfits, natural, suggest, table
from utils import UserError, nearest

LISTED, NEAR = 10, 3
LOG = logging.getLogger("main")


def map_file(
    path: Path,
    template: Mapping[str, Any],
    sources: Mapping,
    rename: Mapping[str, str | None],
    partial: Any = None,
) -> tuple[dict[str, Lazy], list[Row], dict[str, str], str]:
    """Returns `map_arrays` of a file, the first of `suggest`, and a hint at both, or "".

    Args:
        path: of a safetensors file, or of an index of such.
        template: {path: parameter}, each with a shape.
        sources: {source: names of its parts}, the NAMES of the network's file.
        rename: more of such names, which are first.
        partial: paths of the parts that are to be taken, if it is a list.
    """
    arrays = open_foreign(path)
    _check_rename(rename, arrays, path)
    taken = template
    if isinstance(partial, list):
        taken = {name: leaf for name, leaf in template.items() if fits(name, partial, below=True)}
    source, names = choose_source(arrays, taken or template, sources, rename, path)
    values, rows = map_arrays(arrays, template, names, path)
    if source:
        LOG.info("Its names are taken for %s", source)
    LOG.debug("What becomes of the arrays of %s:\n%s", path, table(rows))
    for row in rows:
        if row.layout == "resized":
            LOG.warning("%s %s is interpolated to %s", *row.sources, *row.shapes, row.shape)
    sure, near = suggest(rows)
    return values, rows, sure, _hint(rows, template, sure, near)


def _hint(rows, template, sure, near):
    hint, count = "", sum(row.target in template for row in rows if row.sources)
    if 2 * count < len(template):
        hint = f"Only {count} of {len(template)} names are known: is it a file of this network? "
    if sure:
        hint += f'By its shapes, this may be meant: "rename": {json.dumps(sure)}. '
    for part, others in itertools.islice(near.items(), NEAR):
        hint += f"{part} may be {' or '.join(others)}. "
    if parts := misfits(rows):
        hint += (
            f'All but what differs: "except": {json.dumps(parts)}; all that fits: "partial": true. '
        )
    return hint


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
            given = [np.asarray(arrays[name]) for name in row.sources]
            values[row.target] = _value(row, given, path, _dtype(given[0], template, row.target))
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
    arrays: Mapping, template: Mapping, sources: Mapping[str, Mapping], rename: Mapping, path: Path
) -> tuple[str, dict]:
    """Returns what the names of a file are taken for, and what they stand for here.

    It is that of `sources` (see __init__.py) by which most parameters get an array, of the whole
    file or of a part, for the whole network or a part; "" if none does better than the file's own
    names.

    Raises:
        UserError: several parts do equally well.
    """
    found, best = {}, ("", "", "")
    parts = itertools.product(_large_parts(map(normal, arrays)), _large_parts(template))
    for there, here in sorted(parts, key=lambda both: len("".join(both))):
        for source, names in {"": {}, **sources}.items():
            names, place = {**rename, **nest(names, there, here)}, (source, there, here)
            found[place] = (names, *_sources_of(arrays, template, names))
            if found[place][1] and found[place][2] > found[best][2]:
                best = place
        if found[best][3] and not there and not here:
            break
    names, chosen, score, _ = found[best]
    if any(best[1:]):
        for rival, (_, other, points, _) in found.items():
            if points == score and other != chosen:
                _refuse_rivals(best, rival, path)
    source, there, here = best
    words = f"those of {source}" if source else "the network's"
    words += f", in its part {there}" * bool(there) + f", for the part {here}" * bool(here)
    return words if any(best) else "", names


def _large_parts(names):
    """Returns the paths of parts that have more than a third of all arrays; first "", all."""
    names = list(names)
    counts = Counter(name[: end.start()] for name in names for end in re.finditer("/", name))
    return ["", *(part for part, count in counts.items() if 3 * count > len(names))]


def _sources_of(arrays, template, names):
    """Returns what a file has for the parameters under these names, and how well it fits.

    Returns:
        {path of a parameter: names of its arrays}
        how many there are, of how many the size is right as well, how many arrays the names tell of
        whether no other names could find more
    """
    found, sizes, rest, known = {}, Counter(), 0, 0
    for name, array in arrays.items():
        targets = translate(name, names)
        known += targets is not None
        for one in [Target(normal(name), (0, 1), (0, 1), "")] if targets is None else targets:
            place = _place(one.name, template)
            if place in template:
                found.setdefault(place, []).append(name)
                sizes[place] += array.size // one.share[1]
            else:
                rest += one.layout != OPTIONAL
    fit = sum(sizes[place] == math.prod(template[place].shape) for place in found)
    return found, (len(found), fit, known), not rest or len(found) == len(template)


def _refuse_rivals(best, rival, path):
    (_, there, here), (_, other_there, other_here) = best, rival
    if here != other_here:
        raise UserError(
            f"{path}: by their names and sizes, its arrays may be for {here or 'the network'} or "
            f'for {other_here or "the whole network"}. Say for which: "partial": ["{here}"]'
        )
    raise UserError(
        f"{path}: by their names and sizes, the arrays below {there!r} fit, and those below "
        f'{other_there!r} as well. Leave one out: "rename": {{"{other_there}": null}}'
    )


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
            place = _place(target.name, template)
            if target.layout == OPTIONAL and place not in template:
                rows.append(Row((name,), place, (shape,), None, "", (0, 1), "not needed"))
            else:
                found.setdefault(place, []).append((name, shape, target))
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
            Row(sources, place, shapes, template.get(place),
                targets[0].layout.removeprefix(OPTIONAL), targets[0].share, problem)
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


def _dtype(array, template, name):
    """What an array becomes: of a floating-point one, the parameter's dtype if that is one, too."""
    if not is_floating(array.dtype):
        return array.dtype
    wanted = getattr(template.get(name), "dtype", FLOAT32)
    return wanted if is_floating(wanted) else FLOAT32


def _value(row, arrays, path, dtype):
    """The Lazy of a row; of one with a problem, its first array as it is stored."""
    if row.problem:
        name = row.sources[0]
        return Lazy(arrays[0].shape, dtype, lambda: as_float32(arrays[0], name, path, dtype))

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
        return as_float32(part, " + ".join(row.sources), path, dtype)

    return Lazy(row.shape, dtype, make)
