"""Pooling over windows of an image. These layers have no parameters."""

import jax.numpy as jnp
from jax import lax

from model.modules.core import as_float
from model.modules.geometry import pad_widths, pair
from model.modules.operators import window_maximum


def max_pool(x, window, stride=None, padding="VALID", *, params=None, key=None, train=False):
    """Returns the maximum in each window.

    Args:
        x: (batch, height, width, channels)
        window: in pixels, one integer or (vertical, horizontal)
        stride: in pixels, one integer or (vertical, horizontal); None for the window's size
        padding: "SAME", "VALID", or pixels as for `pad_widths`; padding is never the maximum

    Returns:
        y: (batch, output height, output width, channels)
        params: {}
    """
    x = as_float(x, "batch", "height", "width", "channels")
    window, stride = pair(window), pair(window if stride is None else stride)
    return window_maximum(x, window, stride, pad_widths("max_pool", x, window, stride, padding)), {}


def average_pool(x, window, stride=None, padding="VALID", *, params=None, key=None, train=False):
    """Returns the average of each window.

    Args:
        x: (batch, height, width, channels)
        window: in pixels, one integer or (vertical, horizontal)
        stride: in pixels, one integer or (vertical, horizontal); None for the window's size
        padding: "SAME", "VALID", or pixels as for `pad_widths`; padding is not counted

    Returns:
        y: (batch, output height, output width, channels)
        params: {}
    """
    x = as_float(x, "batch", "height", "width", "channels")
    window, stride = pair(window), pair(window if stride is None else stride)
    widths = pad_widths("average_pool", x, window, stride, padding)

    def window_sum(values):
        return lax.reduce_window(
            values, 0.0, lax.add, (1, *window, 1), (1, *stride, 1), ((0, 0), *widths, (0, 0))
        )

    total = window_sum(x.astype(jnp.float32))
    count = window_sum(jnp.ones((1, *x.shape[1:3], 1)))
    return (total / count).astype(x.dtype), {}


def global_average_pool(x, *, params=None, key=None, train=False):
    """Returns the average over all positions.

    Args:
        x: (batch, ..., channels)

    Returns:
        y: (batch, channels)
        params: {}
    """
    x = as_float(x, "batch", "...", "channels")
    return x.mean(axis=tuple(range(1, x.ndim - 1))), {}
