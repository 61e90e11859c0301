"""What becomes of each array of a file and of each parameter; what may be meant by what is left."""

import difflib
import re
from typing import NamedTuple

from training.weights.names import normal

LISTED = 3


class Row(NamedTuple):
    """An array of the network, or of the file, and what becomes of it."""

    sources: tuple[str, ...]  # names in the file; () if it is missing there
    target: str  # path of the parameter, or where the array would go
    shapes: tuple[tuple[int, ...], ...]  # in the file, of each source
    shape: tuple[int, ...] | None  # in the network; None if it has no such parameter
    layout: str  # "as-is", "transposed", "depthwise", "resized"; "" if the shape does not fit
    share: tuple[int, int]  # (1, 3): the second third of the sources
    problem: str  # "" or "missing", "extra", "not needed", "other shape", "ambiguous"


def table(rows: list[Row]) -> str:
    """Returns what becomes of every array; those of repeated blocks are one line."""
    lines = {}
    for row in rows:
        words = [
            " + ".join(row.sources) or "-", " + ".join(map(str, row.shapes)),
            "->" if row.sources and not row.problem else row.problem or "",
            row.target, "" if row.shape is None else str(row.shape), _how(row),
        ]  # fmt: skip
        words[0], words[3] = _starred(words[0]), _starred(words[3])
        lines[tuple(words)] = lines.get(tuple(words), 0) + 1
    cells = [(*words, f"x {count}" if count > 1 else "") for words, count in lines.items()]
    widths = [max(map(len, column), default=0) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def suggest(rows: list[Row]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Proposes names for what is missing, by the shapes and the order of what is left over.

    Returns:
        {part of the file: part of the network}: no other part has such shapes.
        {part of the network: parts of the file}: several may be meant, or the names are near.
    """
    missing, extra = (_groups(rows, one) for one in ("missing", "extra"))
    sure, near = {}, {}
    for part, (letters, sizes) in missing.items():
        alike = [other for other, known in extra.items() if known[1] == sizes]
        rivals = [other for other, known in missing.items() if known[1] == sizes]
        if len(alike) == len(rivals) == 1:
            (other,) = alike
            if extra[other][0] == letters:
                sure[other] = part
            else:  # other numbers, in the same order
                pairs = zip(extra[other][0], letters, strict=True)
                sure |= {_filled(other, old): _filled(part, new) for old, new in pairs}
        else:
            near[part] = difflib.get_close_matches(part, alike or extra, 3, 0 if alike else 0.6)
    return sure, {part: others for part, others in near.items() if others}


def misfits(rows: list[Row]) -> list[str]:
    """Returns paths of the parts that do not fit, for `except`; [] where these are many or all."""
    bad = [row.target for row in rows if row.problem in ("missing", "extra", "other shape")]
    good = [row.target for row in rows if not row.problem]
    leaves, others = ({name.rpartition("/")[2] for name in names} for names in (bad, good))
    if not leaves & others:
        return sorted(f"**/{leaf}" for leaf in leaves)[:LISTED] if good else []
    layers = {name.rpartition("/")[0] for name in bad}
    good = [name for name in good if name.rpartition("/")[0] not in layers]
    parts = dict.fromkeys(
        next(
            (path for path in _paths(name) if not any(one.startswith(f"{path}/") for one in good)),
            name,
        )
        for name in bad
    )
    return [*parts] if len(parts) <= LISTED and good else []


def _paths(name):
    """The parts that a name is in, the largest first."""
    return [name[: end.start()] for end in re.finditer("/", name)]


def _how(row):
    if row.problem or not row.sources:
        return ""
    words = [row.layout] * (row.layout != "as-is")
    if row.share[1] > 1:
        words.append(f"share {row.share[0] + 1} of {row.share[1]}")
    return ", ".join(words)


def _groups(rows, problem):
    """{part, with stars for its numbers: (the numbers of each such part, their arrays' sizes)}."""
    parts = {}
    for row in rows:
        if row.problem == problem:
            name = normal(row.sources[0]) if row.sources else row.target
            part, _, leaf = name.rpartition("/")
            shape = row.shapes[0] if row.shapes else row.shape
            sizes = sorted(size for size in shape if size != 1)
            parts.setdefault(part or leaf, []).append(sizes)
    groups = {}
    for part in sorted(parts, key=natural):
        letters, sizes = groups.setdefault(_starred(part), ([], []))
        letters.append(re.findall(r"\d+", part))
        sizes.append(sorted(parts[part]))
    return groups


def _filled(part, letters):
    letters = iter(letters)
    return re.sub(r"\*", lambda _: next(letters), part)


def _starred(name):
    return re.sub(r"\d+", "*", name)


def natural(name):
    """Returns a key for sorting by the numbers in a name: block2 before block10."""
    return [int(one) if one.isdigit() else one for one in re.split(r"(\d+)", name)]
