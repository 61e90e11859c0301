"""Transforms on the device: pure functions that the jitted update calls; yours are written here.

One of `data_loader.augment` is f(batch, *, key), of {"inputs", "targets", "weight"}, or of the
inputs alone f(x, *, key); one of `data_loader.preprocess` is f(x). docs/transforms.md has examples,
and the library of data_loader/augment/.

Images are (batch, channels, height, width), as the loader returns them: uint8 until `normalize`,
a quarter of the bytes of float32 to send and to shift.
"""

from typing import Any

import jax
import jax.numpy as jnp

from data_loader.augment.geometric import random_crop


def normalize(x: jax.Array, mean: float | list[float], std: float | list[float]) -> jax.Array:
    """Converts images from 0 ... 255 to numbers around zero, (x / 255 - mean) / std.

    Args:
        x: (batch, channels, height, width) uint8.
        mean, std: of the data set's pixels, scaled to 0 ... 1; a number, or one per channel.

    Returns:
        (batch, channels, height, width) float32
    """
    return (x.astype(jnp.float32) / 255 - _per_channel(mean)) / _per_channel(std)


def random_shift(batch: Any, pixels: int, *, key: jax.Array) -> Any:
    """Shifts every image by its own random whole number of pixels, and fills up with zeros.

    Args:
        batch: pictures and what lies in them; or pictures alone, of any type.
        pixels: largest shift, up or down and left or right; 0 for none.
        key: random key.
    """
    return random_crop(batch, padding=pixels, key=key)


def _per_channel(value):
    array = jnp.asarray(value, jnp.float32)
    return array.reshape(-1, 1, 1) if array.ndim else array
