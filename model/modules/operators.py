"""Convolution and maximum over windows, each in the form that runs fastest.

XLA has one operator for every convolution. Its gradients are slow for two kinds on a CPU, and
both are a matrix product in disguise. `convolve` chooses, and is the only place that does:

    patches    stride = kernel: windows do not overlap, so the image is cut into patches and
               multiplied by the kernel as a matrix. 1x1 convolutions are such patches too.
    dense      depthwise on a CPU: per channel, the flattened image times the kernel laid out as
               one (pixels in, pixels out) matrix, while that matrix is small. Forward and
               backward of 512 x 7 x 7 x 8 with a 7x7 kernel take 1 ms instead of 85 ms.
    plain      anything else.

All forms agree in value and gradient (tests/test_layers.py). Inside `plain_operators()` only
XLA's own operators are used.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Above this many pixels the dense matrix, (pixels, pixels) per channel, outgrows what it saves.
DENSE_PIXELS = 16 * 16

_plain = jax.make_user_context(False)  # unlike a global, part of the key of jit's caches


def plain_operators():
    """Returns a context in which convolutions and pooling are XLA's own operators.

    Converters to other formats know these operators by sight. Jitted functions are traced anew:

        with plain_operators():
            exported = jax.export.export(jax.jit(network))(x)
    """
    return _plain(True)


def convolve(x, kernel, stride, padding, groups):
    """Convolves a batch of images with a kernel.

    Args:
        x: (batch, height, width, channels)
        kernel: (kernel height, kernel width, channels // groups, features)
        stride: (vertical, horizontal), in pixels
        padding: ((top, bottom), (left, right)), in pixels of zeros
        groups: number of groups of channels that are convolved apart

    Returns: (batch, output height, output width, features)
    """
    _, height, width, channels = x.shape
    *window, _, features = kernel.shape
    plain = functools.partial(_plain_convolve, stride=stride, padding=padding, groups=groups)
    if _plain.value:
        return plain(x, kernel)
    if groups == 1 and tuple(window) == stride:
        return _patches_convolve(x, kernel, padding)
    if groups == channels == features and height * width <= DENSE_PIXELS:
        dense = functools.partial(_dense_convolve, stride=stride, padding=padding)
        return lax.platform_dependent(x, kernel, cpu=dense, default=plain)
    return plain(x, kernel)


def window_maximum(x, window, stride, padding):
    """Returns the maximum in each window, for arguments and a result shaped as in `convolve`.

    The maximum of shifted views, first along the height, then along the width: its gradient is
    ten times as fast on a CPU as that of XLA's operator. Equal maxima share the gradient.
    """
    lowest = jnp.array(-jnp.inf, x.dtype)
    padding = ((0, 0), *padding, (0, 0))
    if _plain.value:
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *stride, 1), padding)
    x = lax.pad(x, lowest, [(low, high, 0) for low, high in padding])
    for axis, size, step in zip((1, 2), window, stride, strict=True):
        last = (x.shape[axis] - size) // step * step  # where the last window starts
        views = [lax.slice_in_dim(x, first, first + last + 1, step, axis) for first in range(size)]
        x = functools.reduce(jnp.maximum, views)
    return x


def _plain_convolve(x, kernel, stride, padding, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=stride,
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _patches_convolve(x, kernel, padding):
    height, width, channels, features = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    batch, rows, columns = x.shape[0], x.shape[1] // height, x.shape[2] // width
    x = x[:, : rows * height, : columns * width]  # no window reaches the rest
    x = x.reshape(batch, rows, height, columns, width, channels).swapaxes(2, 3)
    x = x.reshape(batch, rows, columns, height * width * channels)
    return x @ kernel.reshape(-1, features)


def _dense_convolve(x, kernel, stride, padding):
    rows, columns = (
        _taps(*sizes, *pads).astype(x.dtype)
        for *sizes, pads in zip(x.shape[1:3], kernel.shape[:2], stride, padding, strict=True)
    )
    # i, j: pixel in; p, q: pixel out; k, l: kernel; c: channel; b: example
    matrix = jnp.einsum("kip,ljq,klc->cijpq", rows, columns, kernel[:, :, 0])
    return jnp.einsum("bijc,cijpq->bpqc", x, matrix)


def _taps(pixels, size, step, before, after):
    """(size, pixels in, pixels out), 1 where the kernel's element k joins pixel i to output p."""
    outputs = (before + pixels + after - size) // step + 1
    element, pixel, output = np.ogrid[:size, :pixels, :outputs]
    return pixel == output * step - before + element
