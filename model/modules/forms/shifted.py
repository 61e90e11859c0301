"""Depthwise convolution as a sum of shifted images. Arguments as for `convolve`."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from model.modules.forms.convolution import pad


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def shifted_convolve(x, kernel, stride, padding):
    """Defines its own gradients, since the derived ones are slow: no jax.jvp and no hessian."""
    return _slide(pad(x, padding), kernel, stride)


def _shifted_forward(x, kernel, stride, padding):
    return shifted_convolve(x, kernel, stride, padding), (x, kernel)


def _shifted_backward(stride, padding, saved, grads):
    x, kernel = saved
    window = kernel.shape[:2]
    # The gradient of x is the convolution of `grads` with the reversed kernel, with as many zeros
    # around and between them that each pixel of x gets the gradients of all its windows.
    spaces = []
    for pixels, outputs, size, step, (before, _) in zip(
        x.shape[1:3], grads.shape[1:3], window, stride, padding, strict=True
    ):
        low = size - 1 - before
        spaces.append((low, pixels + size - 1 - low - ((outputs - 1) * step + 1), step - 1))
    dilated = lax.pad(grads, jnp.zeros((), grads.dtype), [(0, 0, 0), *spaces, (0, 0, 0)])
    to_x = _slide(dilated, kernel[::-1, ::-1], (1, 1))
    return to_x, _correlate(pad(x, padding), grads, window, stride).astype(kernel.dtype)


shifted_convolve.defvjp(_shifted_forward, _shifted_backward)


def _slide(x, kernel, stride):
    """Returns the depthwise convolution of a padded image, summed in float32."""
    rows, columns = (
        [slice(first, first + size - length + 1, step) for first in range(length)]
        for size, length, step in zip(x.shape[1:3], kernel.shape[:2], stride, strict=True)
    )
    total = sum(
        x[:, row, column].astype(jnp.float32) * kernel[k, l, 0].astype(jnp.float32)
        for k, row in enumerate(rows)
        for l, column in enumerate(columns)  # noqa: E741
    )
    return total.astype(x.dtype)


def _correlate(x, grads, window, stride):
    """Returns the gradient of `_slide` by its kernel: (kernel height, kernel width, 1, channels).

    Each number of a row of `grads` is multiplied by its window, and all products are summed. A
    loop over the rows carries the next row along: XLA would read a row again for each number if it
    were read in the same iteration.
    """
    height, width = window
    down, right = stride
    batch, outputs, columns, channels = grads.shape

    def read(row):
        strip = lax.dynamic_slice_in_dim(x, row * down, height, 1)
        line = lax.dynamic_index_in_dim(grads, row, 1, keepdims=False)
        return strip.astype(jnp.float32), line.astype(jnp.float32)[:, :, None, None]

    def add(carry, row):
        total, strip, line = carry
        for column in range(columns):
            first = column * right
            total += strip[:, :, first : first + width] * line[:, column]
        return (total, *read(row + 1)), None

    total = jnp.zeros((batch, height, width, channels), jnp.float32)
    (total, *_), _ = lax.scan(add, (total, *read(0)), jnp.arange(outputs))
    return total.sum(0)[:, :, None]
