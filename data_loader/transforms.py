"""Changes to pictures on the device: pure functions to call inside the jitted update.

Pictures are (batch, channels, height, width), as the loader hands them over: uint8 until
`normalize`, a quarter of the bytes to send and to shift.
"""

import jax
import jax.numpy as jnp


def normalize(x, mean, std):
    """Converts pictures from 0 ... 255 to numbers around zero, (x / 255 - mean) / std.

    Args:
        x: (batch, channels, height, width) uint8.
        mean, std: of the data set on the scale 0 ... 1; a number, or one per channel.

    Returns:
        (batch, channels, height, width) float32
    """
    mean, std = (jnp.asarray(value, jnp.float32) for value in (mean, std))
    if mean.ndim or std.ndim:
        mean, std = mean.reshape(-1, 1, 1), std.reshape(-1, 1, 1)
    return (x.astype(jnp.float32) / 255 - mean) / std


def random_shift(x, pixels, *, key):
    """Shifts every picture by its own random whole number of pixels, and fills up with zeros.

    Args:
        x: (batch, channels, height, width), of any type.
        pixels: largest shift, up or down and left or right; 0 for none.
        key: key of the step.

    Returns:
        shifted pictures, of the shape and type of x
    """
    padded = jnp.pad(x, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)))
    corners = jax.random.randint(key, (len(x), 2), 0, 2 * pixels + 1)
    crop = jax.vmap(lambda picture, at: jax.lax.dynamic_slice(picture, (0, *at), x.shape[1:]))
    return crop(padded, corners)
