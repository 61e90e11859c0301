"""Sections of the report that functions make: `f(inputs, outputs, targets)` -> what is to be seen.

A function returns pictures, arrays (height, width[, 3]) or a list of them; a table, a dict or a
list of dicts, its rows; a number; a text or a list of texts.
"""

import logging
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from training.engine.user_code import reason_of
from training.report.images import data_uri_of
from utils import printable

MOST = 200  # pictures, rows or texts of one function
EXPECTED = (
    "expected pictures (height, width) or (height, width, 3), a dict or a list of dicts as a "
    "table, a number or a text"
)
LOG = logging.getLogger("main")


class Block(NamedTuple):
    """A part of a section: `kind` is "charts", "images", "table", "texts" or "number"."""

    kind: str
    value: Any


class Section(NamedTuple):
    """A section of the report."""

    title: str
    text: str = ""
    blocks: list = []  # noqa: RUF012, never changed
    error: str = ""


def run_function(name, function, examples):
    """Returns the Section of a function; its errors are shown there, and logged."""
    try:
        found = function(examples.inputs, examples.outputs, examples.targets)
        blocks = blocks_of(found)
    except Exception as error:  # the run, and the rest of its report, survive whatever it raises
        LOG.warning("The report lacks %s: %s", name, reason_of(error))
        return Section(name, error=reason_of(error))
    shown = len(jax.tree.leaves(examples.outputs)[0])
    of = f" of {examples.total:,}" if examples.total else ""
    summary = (function.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    return Section(name, f"{summary + '. ' if summary else ''}{shown:,}{of} test examples.", blocks)


def blocks_of(found):
    """Returns the Blocks of what a function returned; raises ValueError for anything else."""
    if isinstance(found, Block):
        return [found]
    if isinstance(found, list | tuple) and found and all(isinstance(one, Block) for one in found):
        return list(found)
    if isinstance(found, dict):
        found = [{"": key, "value": value} for key, value in found.items()]
    if isinstance(found, str):
        found = [found]
    if isinstance(found, list | tuple) and found:
        some = found[:MOST]
        if all(isinstance(one, str) for one in some):
            return [Block("texts", [printable_lines(one) for one in some])]
        if all(isinstance(one, dict) for one in some):
            return [table(some)]
        return [Block("images", [(picture(one), "") for one in some])]
    if np.ndim(found) == 0 and not isinstance(found, list | tuple):
        return [Block("number", cell(found))]
    return [Block("images", [(picture(found), "")])]


def table(rows, colours=()):
    """Returns the Block of a table, rows being dicts; `colours` are marks of the rows."""
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    texts = [{str(key): cell(value) for key, value in row.items()} for row in rows]
    cells = [[row.get(key, "") for key in columns] for row in texts]
    return Block("table", {"columns": columns, "rows": cells, "colours": list(colours)})


def cell(value):
    """Returns a number or a text as a table shows it; raises ValueError for anything else."""
    if isinstance(value, str):
        return printable(value)
    if value is None:
        return ""
    number = np.asarray(value)
    if number.ndim or number.dtype.kind not in "biufV":  # V: bfloat16
        kind = type(value).__name__
        raise ValueError(f"got a {kind}{_shape(value)} in place of a number; {EXPECTED}")
    return float(number) if number.dtype.kind in "fV" else int(number)


def picture(array):
    """Returns an array (height, width[, 3]) as a data URI: uint8 as it is, else from 0 to 1.

    Numbers beyond 0 to 1 are scaled from the least, black, to the largest, white.
    """
    pixels = np.asarray(array)
    grey = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] in (1, 3))
    if not grey or pixels.dtype.kind not in "biufV" or not pixels.size:
        raise ValueError(f"got {type(array).__name__}{_shape(array)}; {EXPECTED}")
    if pixels.dtype != np.uint8:
        pixels = pixels.astype(np.float64)
        finite = pixels[np.isfinite(pixels)]
        low, high = min(0.0, finite.min(initial=0)), finite.max(initial=0)
        high = 1.0 if low == 0 and high <= 1 else high
        pixels = np.nan_to_num(255 * (pixels - low) / ((high - low) or 1), posinf=255, neginf=0)
        pixels = np.round(pixels).astype(np.uint8)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return data_uri_of(Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()))


def printable_lines(text):
    """Returns a text without control characters but the ends of its lines."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _shape(value):
    return f" of shape {np.shape(value)}" if hasattr(value, "shape") else ""
