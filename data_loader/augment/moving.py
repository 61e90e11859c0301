"""Moves what lies in a picture: the picture itself, masks, weights of pixels, boxes and points.

Pictures are (batch, channels, height, width). What belongs to them is found by shape and name:

- a mask, or any map of the picture's height and width: (batch, height, width) or (batch, channels,
  height, width). Integers, and what is called "mask" or "masks", take the nearest pixel, other
  numbers are interpolated; from outside come zeros.
- "box" or "boxes" of targets that are a dict: (batch, 4) or (batch, boxes, 4) of x0, y0, x1, y1 in
  pixels from the upper left corner, so that a box of the whole picture is 0, 0, width, height. They
  are clipped to the picture; one that has left it has no area.
- "point" or "points" of such: (batch, 2) or (batch, points, 2) of x, y; they may leave the picture.

All other targets, such as classes, stay as they are.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from utils import UserError

MASKS, BOXES, POINTS = ("mask", "masks"), ("box", "boxes"), ("point", "points")
MOST_CHANNELS = 4  # of a picture; more in the last axis alone means that channels come last


def move(batch: Any, sample: Callable, matrix: jax.Array, size: tuple[int, int]) -> Any:
    """Returns a batch in which all that lies in the pictures is moved.

    Args:
        batch: {"inputs", "targets", "weight"}; or pictures alone.
        sample: (array (batch, ..., height, width), nearest) -> it moved, (batch, ..., *size);
            `nearest` asks for values that occur, not for means.
        matrix: (batch, 2, 3), where a point (x, y) goes to.
        size: new height and width.
    """
    if not isinstance(batch, dict):
        return sample(batch, False)
    old = picture_size(batch)

    def moved(path, leaf):
        name = getattr(path[-1], "key", "") if path else ""
        of_inputs, in_picture = path[0].key == "inputs", jnp.shape(leaf)[-2:] == old
        if leaf.ndim > 2 and in_picture and name not in BOXES + POINTS:
            whole = jnp.issubdtype(leaf.dtype, jnp.integer) or leaf.dtype == bool
            return sample(leaf, name in MASKS or (whole and not of_inputs))
        if of_inputs or leaf.ndim < 2:
            return leaf
        if name in BOXES:
            return _as(leaf, _move_boxes(_last(leaf, 4, path), matrix, size))
        if name in POINTS:
            return _as(leaf, _move_points(_last(leaf, 2, path), matrix))
        if len(path) == 1 and path[0].key == "targets" and leaf.ndim > 2:
            raise UserError(
                f"targets of shape {leaf.shape} beside pictures of {old[0]} x {old[1]} pixels; "
                'expected masks of that size, or a dict such as {"boxes": ...}, whose names say '
                "what moves with the picture: see docs/transforms.md"
            )
        return leaf

    fields = {name: batch[name] for name in ("inputs", "targets", "weight")}
    return batch | jax.tree_util.tree_map_with_path(moved, fields)


def picture_size(batch: Any) -> tuple[int, int]:
    """Returns height and width of the pictures of a batch, or of (batch, channels, height, width).

    Raises:
        UserError: there are none, or they differ.
    """
    inputs = batch["inputs"] if isinstance(batch, dict) and "inputs" in batch else batch
    shapes = [leaf.shape for leaf in jax.tree.leaves(inputs) if leaf.ndim == 4]
    if len({shape[-2:] for shape in shapes}) != 1:
        got = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(inputs))
        raise UserError(
            f"inputs have shape {got}; expected pictures, (batch, channels, height, width)"
        )
    _, channels, height, width = shapes[0]
    if width <= MOST_CHANNELS < channels:
        raise UserError(
            f"inputs have shape {shapes[0]}; expected (batch, channels, height, width), the "
            "channels before the pixels"
        )
    return height, width


def examples(batch: Any) -> int:
    """Returns the number of examples of a batch, or of pictures."""
    return len(batch["weight"] if isinstance(batch, dict) else batch)


def affine(batch: Any, matrix: jax.Array, size: tuple[int, int], fill: float = 0) -> Any:
    """Returns a batch whose pictures are moved by any affine map; `fill` comes from outside.

    Args:
        batch, matrix, size: see `move`.
        fill: value of what comes from outside of a picture; masks have 0.
    """
    inverse = _inverse(matrix)

    def sample(x, nearest):
        one = partial(_sample, size=size, nearest=nearest, fill=fill)
        planes = x.reshape(len(x), -1, *x.shape[-2:])
        moved = jax.vmap(jax.vmap(one, (0, None)))(planes, inverse)
        return moved.reshape(*x.shape[:-2], *size)

    return move(batch, sample, matrix, size)


def mirror(batch: Any, across: jax.Array | None = None, down: jax.Array | None = None) -> Any:
    """Returns a batch in which some pictures are mirrored.

    Args:
        batch: see `move`.
        across: (batch,) booleans, which left to right; None: none.
        down: (batch,) booleans, which upside down; None: none.
    """
    height, width = picture_size(batch)
    chosen = [(flips, axis) for flips, axis in ((across, -1), (down, -2)) if flips is not None]

    def sample(x, nearest):
        for flips, axis in chosen:
            x = jnp.where(flips.reshape(-1, *[1] * (x.ndim - 1)), jnp.flip(x, axis), x)
        return x

    x, y = (
        jnp.zeros(examples(batch)) if flips is None else 1.0 * flips for flips in (across, down)
    )
    matrix = matrix_of(1 - 2 * x, 0, x * width, 0, 1 - 2 * y, y * height)
    return move(batch, sample, matrix, (height, width))


def about_middle(
    angle: Any, factor: Any, lean_x: Any, lean_y: Any, x: Any, y: Any, size: tuple[int, int]
) -> jax.Array:
    """Returns maps, (batch, 2, 3), that shear, turn and scale about the middle, and then shift."""
    cos, sin = factor * jnp.cos(angle), factor * jnp.sin(angle)
    # Turned by [[cos, -sin], [sin, cos]] after being sheared by [[1, lean_x], [lean_y, 1]].
    a, b = cos - sin * lean_y, cos * lean_x - sin
    c, d = sin + cos * lean_y, sin * lean_x + cos
    middle_y, middle_x = size[0] / 2, size[1] / 2
    return matrix_of(
        a, b, x + middle_x - a * middle_x - b * middle_y,
        c, d, y + middle_y - c * middle_x - d * middle_y,
    )  # fmt: skip


def matrix_of(*numbers: Any) -> jax.Array:
    """Returns (batch, 2, 3) of six numbers, row by row, of which some are (batch,)."""
    six = jnp.broadcast_arrays(*(jnp.asarray(one, jnp.float32) for one in numbers))
    return jnp.stack(six, -1).reshape(-1, 2, 3)


def rectangles(
    key: jax.Array, height: jax.Array, width: jax.Array, size: tuple[int, int]
) -> jax.Array:
    """Returns which pixels are in a rectangle around a random pixel, (batch, *size) booleans.

    Args:
        key: random key.
        height, width: (batch,) of the rectangles in pixels; what leaves the picture is cut off.
        size: height and width of the pictures.
    """
    inside = []
    middles = jax.random.uniform(key, (2, len(height)))
    for side, pixels, middle in zip((height, width), size, middles, strict=True):
        first = jnp.round(middle * pixels - side / 2)[:, None]
        at = jnp.arange(pixels)
        inside.append((at >= first) & (at < first + jnp.round(side)[:, None]))
    return inside[0][:, :, None] & inside[1][:, None, :]


def _sample(plane, back, size, nearest, fill):
    """Reads each pixel of (*size) where `back`, (2, 3), says that it is from in (height, width)."""
    y, x = jnp.mgrid[: size[0], : size[1]] + 0.5  # the middle of a pixel
    at = [row[0] * x + row[1] * y + row[2] - 0.5 for row in (back[1], back[0])]
    order, fill = (0, 0) if nearest else (1, fill)
    return map_coordinates(plane, at, order=order, mode="constant", cval=fill)


def _inverse(matrix):
    """The inverse of affine maps, (batch, 2, 3)."""
    (a, b, x), (c, d, y) = (tuple(matrix[:, row, column] for column in range(3)) for row in (0, 1))
    area = a * d - b * c
    a, b, c, d = d / area, -b / area, -c / area, a / area
    rows = (a, b, -(a * x + b * y)), (c, d, -(c * x + d * y))
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def _move_points(points, matrix):
    """Applies the maps to (batch, ..., 2)."""
    rows = matrix.reshape(len(matrix), *[1] * (points.ndim - 2), 2, 3)
    x, y = points[..., 0], points[..., 1]
    moved = [rows[..., i, 0] * x + rows[..., i, 1] * y + rows[..., i, 2] for i in (0, 1)]
    return jnp.stack(moved, -1)


def _move_boxes(boxes, matrix, size):
    """Returns the upright boxes around the moved (batch, ..., 4), clipped to the picture."""
    corners = boxes[..., jnp.array([[0, 1], [2, 1], [0, 3], [2, 3]])]
    corners = _move_points(corners, matrix)
    corners = jnp.clip(corners, 0, jnp.array(size[::-1]))
    return jnp.concatenate([corners.min(-2), corners.max(-2)], -1)


def _as(like, values):
    """Values in the type of an array: whole numbers are rounded, and kept in its range."""
    if not jnp.issubdtype(like.dtype, jnp.integer):
        return values.astype(like.dtype)
    limits = jnp.iinfo(like.dtype)
    return jnp.clip(jnp.round(values), limits.min, limits.max).astype(like.dtype)


def _last(leaf, count, path):
    """The array, if its last axis has so many numbers."""
    if leaf.shape[-1] != count:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        wanted = "x0, y0, x1, y1" if count == 4 else "x, y"
        raise UserError(f"{name} have shape {leaf.shape}; expected (batch, ..., {count}): {wanted}")
    return leaf
