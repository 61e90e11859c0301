"""Transforms of images on the device: pure functions that the jitted update calls.

Images are (batch, channels, height, width), as the loader returns them: uint8 until `normalize`,
a quarter of the bytes of float32 to send and to shift.
"""

import jax
import jax.numpy as jnp


def normalize(x: jax.Array, mean: float | list[float], std: float | list[float]) -> jax.Array:
    """Converts images from 0 ... 255 to numbers around zero, (x / 255 - mean) / std.

    Args:
        x: (batch, channels, height, width) uint8.
        mean, std: of the data set's pixels, scaled to 0 ... 1; a number, or one per channel.

    Returns:
        (batch, channels, height, width) float32
    """
    return (x.astype(jnp.float32) / 255 - _per_channel(mean)) / _per_channel(std)


def random_shift(x: jax.Array, pixels: int, *, key: jax.Array) -> jax.Array:
    """Shifts every image by its own random whole number of pixels, and fills up with zeros.

    Args:
        x: (batch, channels, height, width), of any type.
        pixels: largest shift, up or down and left or right; 0 for none.
        key: key of the step.

    Returns:
        the shifted images, of the shape and type of x
    """
    padded = jnp.pad(x, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)))
    corners = jax.random.randint(key, (len(x), 2), 0, 2 * pixels + 1)
    crop = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (0, *at), x.shape[1:]))
    return crop(padded, corners)


def _per_channel(value):
    array = jnp.asarray(value, jnp.float32)
    return array.reshape(-1, 1, 1) if array.ndim else array
