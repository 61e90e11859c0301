"""The order of an array's axes elsewhere and here.

A matrix is (inputs, outputs) here, a kernel of a convolution (height, width, inputs, outputs).
"as-is" is that; "transposed" is (outputs, inputs, height, width), as PyTorch has it; "depthwise" is
(height, width, inputs, 1), as Keras has it. Axes of length 1 may be there or not.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

MATRICES = ("kernel", "w")  # how arrays that are multiplied with are called here, Haiku's included
TABLES = ("table", "embedding")  # have a row for each integer, everywhere


class Lazy(NamedTuple):
    """An array that is computed when NumPy asks for it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Computes it."""
        return self.make()


def arrange(array: np.ndarray, layout: str) -> np.ndarray:
    """Returns a view with the axes in the order they have here."""
    if layout == "transposed" and array.ndim > 1:
        return array.transpose(*range(2, array.ndim), 1, 0)
    if layout == "depthwise":
        return array.swapaxes(-1, -2)
    return array


def disarrange(array: np.ndarray, layout: str, like: tuple | None = None) -> np.ndarray:
    """Returns a view with the axes in a layout: `arrange` backwards.

    `like` is the shape of the array in whose place it is, which tells where axes have length 1.
    """
    axes = () if like is None else arrange(np.broadcast_to(np.int8(0), like), layout).shape
    if like is not None and array.ndim != len(axes):
        sizes = iter(_long(array.shape))
        array = array.reshape([1 if size == 1 else next(sizes) for size in axes])
    if layout == "transposed" and array.ndim > 1:
        array = array.transpose(-1, -2, *range(array.ndim - 2))
    if layout == "depthwise":
        array = array.swapaxes(-1, -2)
    return array if like is None or array.size != math.prod(like) else array.reshape(like)


def fitting_layouts(shape: tuple, wanted: tuple, leaf: str) -> list[str]:
    """Returns the layouts in which an array has a wanted shape, axes of length 1 aside.

    Args:
        shape: of the array as it is stored.
        wanted: its shape here.
        leaf: its name elsewhere, without the path.
    """
    known = ("depthwise",) if leaf == "depthwise_kernel" else ("as-is", "transposed")
    if len(_long(shape)) < 2 and leaf != "depthwise_kernel":
        known = ("as-is",)  # all orders are the same
    stored = np.broadcast_to(np.int8(0), shape)
    return [one for one in known if _long(arrange(stored, one).shape) == _long(wanted)]


def choose(fits: list[str], leaf: str, target_leaf: str, others: set[str]) -> str | None:
    """Returns the layout of an array that fits in several, as a square matrix; None: unknown.

    Args:
        fits: of `fitting_layouts`.
        leaf: its name elsewhere, without the path.
        target_leaf: its name here.
        others: layouts of the file's arrays of that name whose shape tells.
    """
    if len(fits) == 1:
        return fits[0]
    if target_leaf in TABLES or leaf == target_leaf not in MATRICES:
        return "as-is"
    if leaf in ("weight", *MATRICES):
        usual = "transposed" if leaf == "weight" else "as-is"
        return usual if others <= {usual} else None
    return None if target_leaf in MATRICES else "as-is"


def grids(leaf: str, shape: tuple, wanted: tuple) -> tuple[int, int, int] | None:
    """Returns (tokens before the grid, its side, wanted side) of embeddings of positions, or None.

    They are those of an image's patches, (positions, features), maybe after a class token; a table
    of positions in a text is none.
    """
    (*_, count, features), (*_, other, same) = (0, 0, *_long(shape)), (0, 0, *_long(wanted))
    if "pos" not in leaf or features != same or len(_long(shape)) != 2 or count == other:
        return None
    for before in (0, 1, 2):
        sides = [math.isqrt(max(number - before, 0)) for number in (count, other)]
        if [side**2 + before for side in sides] == [count, other] and min(sides) > 1:
            return before, *sides
    return None


def resize(positions: np.ndarray, before: int, side: int, wanted: int) -> np.ndarray:
    """Returns embeddings of positions for a grid of another size, interpolated bicubically."""
    import jax

    rows = positions.reshape(-1, positions.shape[-1])
    grid = np.asarray(rows[before:], np.float32).reshape(side, side, -1)
    grid = jax.image.resize(grid, (wanted, wanted, grid.shape[-1]), "cubic")
    return np.concatenate([rows[:before], np.asarray(grid).reshape(wanted**2, -1)])


def _long(shape):
    return tuple(size for size in shape if size != 1)
