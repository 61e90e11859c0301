"""Flips, shifts, crops and rotations, a random one for every picture.

Masks, boxes and points of the targets move with the picture: data_loader/augment/moving.py tells
how they are recognised. `batch` may also be pictures alone, (batch, channels, height, width).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from data_loader.augment.moving import (
    about_middle,
    affine,
    examples,
    matrix_of,
    mirror,
    move,
    picture_size,
)
from utils import UserError


def random_flip(
    batch: Any, horizontal: bool = True, vertical: bool = False, *, key: jax.Array
) -> Any:
    """Mirrors half of the pictures, left to right, or upside down, or both.

    Args:
        batch: pictures and what lies in them.
        horizontal: whether to mirror left to right.
        vertical: whether to mirror upside down.
        key: random key.
    """
    wanted = jnp.array([[horizontal], [vertical]], bool)
    across, down = jax.random.bernoulli(key, 0.5, (2, examples(batch))) & wanted
    return mirror(batch, across if horizontal else None, down if vertical else None)


def random_crop(
    batch: Any,
    size: int | Sequence[int] | None = None,
    padding: int = 0,
    fill: float = 0,
    *,
    key: jax.Array,
) -> Any:
    """Cuts a part of every picture, at a random place.

    Args:
        batch: pictures and what lies in them.
        size: height and width of the part in pixels, a number for both; null: those of the picture.
        padding: pixels of `fill` added on each side first.
        fill: their value; masks have 0.
        key: random key.
    """
    old = picture_size(batch)
    new, padding = _size(size, old), _whole("padding", padding)
    room = [side + 2 * padding - part for side, part in zip(old, new, strict=True)]
    if min(room) < 0:
        raise UserError(
            f"size {list(new)} is larger than the pictures, {list(old)} pixels with {padding} of "
            "padding on each side; expected at most as large, or more padding"
        )
    corners = jax.random.randint(key, (examples(batch), 2), 0, jnp.array(room) + 1)

    def sample(x, nearest):
        inner, value = x.shape[1:-2], jnp.asarray(0 if nearest else fill, x.dtype)
        pad = [(0, 0)] * (x.ndim - 2) + [(padding, padding)] * 2
        cut = jax.vmap(
            lambda one, at: jax.lax.dynamic_slice(one, (*[0] * len(inner), *at), (*inner, *new))
        )
        return cut(jnp.pad(x, pad, constant_values=value), corners)

    y, x = padding - jnp.moveaxis(corners, -1, 0).astype(jnp.float32)
    return move(batch, sample, matrix_of(1, 0, x, 0, 1, y), new)


def random_resized_crop(
    batch: Any,
    size: int | Sequence[int] | None = None,
    area: Sequence[float] = (0.08, 1),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    *,
    key: jax.Array,
) -> Any:
    """Cuts a part of random size and shape and scales it to one size, without smoothing.

    Args:
        batch: pictures and what lies in them.
        size: height and width of the result in pixels; null: those of the picture.
        area: smallest and largest share of the picture's area.
        ratio: smallest and largest width over height of the part.
        key: random key.
    """
    old = height, width = picture_size(batch)
    new, count = _size(size, old), examples(batch)
    shares, ratios, place = jax.random.split(key, 3)
    part = height * width * _uniform(shares, count, *_range("area", area, 1e-4, 1))
    shape = jnp.exp(_uniform(ratios, count, *map(math.log, _range("ratio", ratio, 1e-3, 1e3))))
    part_width = jnp.clip(jnp.sqrt(part * shape), 1, width)
    part_height = jnp.clip(jnp.sqrt(part / shape), 1, height)
    right, down = jax.random.uniform(place, (2, count))
    x, y = new[1] / part_width, new[0] / part_height
    left, top = right * (width - part_width), down * (height - part_height)
    return affine(batch, matrix_of(x, 0, -x * left, 0, y, -y * top), new)


def random_affine(
    batch: Any,
    degrees: float = 0,
    translate: float = 0,
    scale: Sequence[float] = (1, 1),
    shear: float = 0,
    fill: float = 0,
    *,
    key: jax.Array,
) -> Any:
    """Turns, shifts, scales and shears every picture about its middle.

    Args:
        batch: pictures and what lies in them.
        degrees: largest angle, in either direction.
        translate: largest shift, as a share of width and height.
        scale: smallest and largest factor.
        shear: largest angle of what was upright, in degrees.
        fill: value of what comes from outside; masks have 0.
        key: random key.
    """
    height, width = picture_size(batch)
    drawn = jax.random.uniform(key, (5, examples(batch)), minval=-1)
    angle, lean = jnp.radians(degrees) * drawn[0], jnp.radians(shear) * drawn[1]
    low, high = _range("scale", scale, 1e-3, 1e3)
    factor = low + (high - low) * (drawn[2] + 1) / 2
    x, y = translate * width * drawn[3], translate * height * drawn[4]
    matrix = about_middle(angle, factor, jnp.tan(lean), 0, x, y, (height, width))
    return affine(batch, matrix, (height, width), fill)


def random_rotation(batch: Any, degrees: float, fill: float = 0, *, key: jax.Array) -> Any:
    """Turns every picture about its middle.

    Args:
        batch: pictures and what lies in them.
        degrees: largest angle, in either direction.
        fill: value of what comes from outside; masks have 0.
        key: random key.
    """
    return random_affine(batch, degrees, fill=fill, key=key)


def _uniform(key, count, low, high):
    return jax.random.uniform(key, (count,), minval=low, maxval=high)


def _size(size, old) -> tuple[int, int]:
    """Height and width of a setting."""
    if size is None:
        return old
    pair = list(size) if isinstance(size, Sequence) else [size, size]
    if len(pair) != 2:
        raise UserError(f"size is {pair}; expected a number, or height and width")
    return _whole("size", pair[0], 1), _whole("size", pair[1], 1)


def _whole(name, value, least=0):
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{name} is {value!r}; expected a whole number of at least {least}")
    return value


def _range(name, value, least, most):
    """The smallest and largest value of a setting."""
    pair = list(value) if isinstance(value, Sequence) else [value, value]
    if len(pair) != 2 or not least <= pair[0] <= pair[1] <= most:
        raise UserError(
            f"{name} is {value!r}; expected the smallest and the largest, in order, between "
            f"{least:g} and {most:g}"
        )
    return pair
