"""Random colours, erased rectangles, and RandAugment, which draws from many operations.

Pictures are (batch, channels, height, width): uint8, or floats from 0 to 1, so these stand before
`normalize`. Three channels are red, green and blue; of other pictures the channels are greys.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from data_loader.augment.moving import about_middle, affine, examples, picture_size, rectangles
from utils import UserError

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in grey, ITU-R BT.601
STRONGEST = 30  # magnitude
COLOURS, SHAPES = 7, 5  # operations of each kind; one more does nothing
# Largest change of a factor, angle in degrees, shear, share of width or height, bits taken away.
FACTOR, ANGLE, SHEAR, SHIFT, BITS = 0.9, 30, 0.3, 0.45, 4


def color_jitter(
    x: jax.Array,
    brightness: float = 0,
    contrast: float = 0,
    saturation: float = 0,
    hue: float = 0,
    *,
    key: jax.Array,
) -> jax.Array:
    """Changes brightness, contrast, saturation and hue of every picture at random, in this order.

    Args:
        x: pictures.
        brightness, contrast, saturation: largest change of a factor: 0.4 is from 0.6 to 1.4.
        hue: largest turn of the hue, as a share of the circle, at most 0.5.
        key: random key.
    """
    picture_size(x)
    for name, amount in {"saturation": saturation, "hue": hue}.items():
        if amount and x.shape[1] != 3:
            raise UserError(f"{name} is {amount}, but pictures have {x.shape[1]} channels, not 3")
    drawn, colours = jax.random.uniform(key, (4, len(x)), minval=-1), _to_unit(x)
    changes = {_brighten: brightness, _raise_contrast: contrast, _saturate: saturation}
    for (change, amount), one in zip(changes.items(), drawn, strict=False):
        if amount:
            colours = change(colours, jnp.maximum(1 + amount * one, 0))
    return _from_unit(_turn_hue(colours, hue * drawn[3]) if hue else colours, x)


def random_erasing(
    x: jax.Array,
    probability: float = 0.5,
    area: Sequence[float] = (0.02, 0.33),
    ratio: Sequence[float] = (0.3, 3.3),
    fill: float = 0,
    *,
    key: jax.Array,
) -> jax.Array:
    """Fills a random rectangle of some pictures (Zhong et al. 2017, arXiv:1708.04896).

    Args:
        x: pictures.
        probability: share of the pictures.
        area: smallest and largest share of the picture's area; what leaves the picture is cut off.
        ratio: smallest and largest height over width.
        fill: value of the rectangle.
        key: random key.
    """
    height, width = picture_size(x)
    chances, sizes, places = jax.random.split(key, 3)
    drawn = jax.random.uniform(sizes, (2, len(x)))
    pixels = height * width * (area[0] + (area[1] - area[0]) * drawn[0])
    shape = jnp.exp(jnp.log(ratio[0]) + jnp.log(ratio[1] / ratio[0]) * drawn[1])
    erased = rectangles(places, jnp.sqrt(pixels * shape), jnp.sqrt(pixels / shape), (height, width))
    erased &= jax.random.bernoulli(chances, 1.0 * probability, (len(x), 1, 1))
    return jnp.where(erased[:, None], jnp.asarray(fill, x.dtype), x)


def cutout(x: jax.Array, size: int, fill: float = 0, *, key: jax.Array) -> jax.Array:
    """Fills a square around a random pixel (DeVries and Taylor 2017, arXiv:1708.04552).

    Args:
        x: pictures.
        size: side of the square in pixels; what leaves the picture is cut off.
        fill: value of the square.
        key: random key.
    """
    side = jnp.full(len(x), size)
    erased = rectangles(key, side, side, picture_size(x))
    return jnp.where(erased[:, None], jnp.asarray(fill, x.dtype), x)


def rand_augment(
    batch: Any, operations: int = 2, magnitude: float = 9, fill: float = 0, *, key: jax.Array
) -> Any:
    """Applies random operations to every picture (after Cubuk et al. 2020, arXiv:1909.13719).

    They are brightness, contrast, saturation, sharpness, posterize, solarize, autocontrast, and
    rotation, shear and shift along both axes, or none. Those that move the picture are done last,
    at once, and move masks, boxes and points as well. Unlike the paper there is no equalize.

    Args:
        batch: pictures, uint8 or floats from 0 to 1, and what lies in them.
        operations: how many for each picture.
        magnitude: their strength, from 0 to 30.
        fill: value of what comes from outside; masks have 0.
        key: random key.
    """
    size, count = picture_size(batch), examples(batch)
    draws, signs = jax.random.split(key)
    drawn = jax.random.randint(draws, (operations, count), 0, COLOURS + SHAPES + 1)
    sign = jnp.where(jax.random.bernoulli(signs, 0.5, (operations, count)), 1.0, -1.0)
    strength = magnitude / STRONGEST

    def recoloured(x):
        if x.ndim != 4:
            return x
        colours = _to_unit(x)
        for one, direction in zip(drawn, sign, strict=True):
            colours = _recolour(colours, one, direction, strength)
        return _from_unit(colours, x)

    if isinstance(batch, dict):
        batch = batch | {"inputs": jax.tree.map(recoloured, batch["inputs"])}
    else:
        batch = recoloured(batch)
    amount = [(strength * sign * (drawn == COLOURS + index)).sum(0) for index in range(SHAPES)]
    matrix = about_middle(
        jnp.radians(ANGLE) * amount[0], 1, SHEAR * amount[1], SHEAR * amount[2],
        SHIFT * size[1] * amount[3], SHIFT * size[0] * amount[4], size,
    )  # fmt: skip
    return affine(batch, matrix, size, fill)


def _recolour(x, drawn, sign, strength):
    """Applies the operation that each picture has drawn, if it is one of colours."""

    def chosen(number):
        return (drawn == number).astype(jnp.float32)

    for number, change in enumerate((_brighten, _raise_contrast, _saturate, _sharpen)):
        x = change(x, 1 + FACTOR * strength * sign * chosen(number))
    step = 2.0 ** round(BITS * strength)
    x = jnp.where(_each(chosen(4)) > 0, jnp.floor(jnp.round(255 * x) / step) * step / 255, x)
    x = jnp.where((_each(chosen(5)) > 0) & (x > 1 - strength), 1 - x, x)
    low, high = x.min((2, 3), keepdims=True), x.max((2, 3), keepdims=True)
    stretched = (x - low) / jnp.where(high > low, high - low, 1)
    return jnp.where((_each(chosen(6)) > 0) & (high > low), stretched, x)


def _each(values):
    return values.reshape(-1, 1, 1, 1)


# Of floats from 0 to 1, and a number for each picture ---------------------------------------------


def _brighten(x, factor):
    """Multiplies pictures; 1 leaves them as they are."""
    return _blend(x, 0, factor)


def _raise_contrast(x, factor):
    """Multiplies the differences to the picture's mean grey."""
    return _blend(x, _grey(x).mean((1, 2, 3), keepdims=True), factor)


def _saturate(x, factor):
    """Multiplies the differences to each pixel's grey."""
    return _blend(x, _grey(x), factor)


def _turn_hue(x, turn):
    """Turns the hue of red, green and blue by a share of the circle, in the HSV model."""
    value, low = x.max(1), x.min(1)
    spread = value - low
    safe = jnp.where(spread > 0, spread, 1)
    red, green, blue = x[:, 0], x[:, 1], x[:, 2]
    sixth = jnp.where(
        value == red, (green - blue) / safe,
        jnp.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    ) + 6 * turn[:, None, None]  # fmt: skip
    place = (jnp.array([5.0, 3.0, 1.0]).reshape(3, 1, 1) + sixth[:, None]) % 6
    return value[:, None] - spread[:, None] * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)


def _grey(x):
    """Returns what pictures are without colour, with one channel, or as many as there are."""
    if x.shape[1] != len(LUMA):
        return x
    return jnp.einsum("c,bchw->bhw", jnp.array(LUMA), x, precision="highest")[:, None]


def _to_unit(x):
    """Returns pictures as float32 from 0 to 1."""
    if jnp.issubdtype(x.dtype, jnp.integer) and x.dtype != jnp.uint8:
        raise UserError(f"pictures are {x.dtype}; expected uint8, or floats from 0 to 1")
    return x.astype(jnp.float32) / (255 if x.dtype == jnp.uint8 else 1)


def _from_unit(x, like):
    """Returns pictures from 0 to 1 in the type of `like`."""
    if like.dtype != jnp.uint8:
        return x.astype(like.dtype)
    return jnp.round(255 * x).astype(jnp.uint8)


def _sharpen(x, factor):
    """Multiplies the differences to the mean of 3 x 3 pixels, the middle one counting 5 times."""
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = x.shape[2:]
    nine = sum(
        padded[:, :, row : row + height, column : column + width]
        for row in range(3)
        for column in range(3)
    )
    blurred = (nine + 4 * x) / 13
    return jnp.clip(blurred + factor.reshape(-1, 1, 1, 1) * (x - blurred), 0, 1)


def _blend(x, other, factor):
    return jnp.clip(other + factor.reshape(-1, 1, 1, 1) * (x - other), 0, 1)
