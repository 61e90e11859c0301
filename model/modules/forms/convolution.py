"""Convolution as XLA's operator and as products of matrices. Arguments as for `convolve`."""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

TILE = 4  # columns of output that the banded form computes together


def plain_convolve(x, kernel, stride, padding, groups):
    """XLA's own operator."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=stride,
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def fitted_convolve(x, kernel, stride, padding, groups=1):
    """XLA's own operator, with the image cropped to what it computes correctly."""
    sizes = tuple(zip(x.shape[1:3], kernel.shape[:2], stride, padding, strict=True))
    # jaxlib 0.10.2 has errors where windows skip pixels, and where a window, or a part of the
    # kernel, covers only padding. Elsewhere XLA's own padding is faster.
    all_meet_pixels = all(max(pads) < size <= pixels + min(pads) for pixels, size, _, pads in sizes)
    if stride != (1, 1) or not all_meet_pixels:
        x, padding = pad(x, padding), ((0, 0), (0, 0))
        height, width = (
            (pixels + before + after - size) // step * step + size
            for pixels, size, step, (before, after) in sizes
        )
        x = x[:, :height, :width]
    return plain_convolve(x, kernel, stride, padding, groups)


def patches_convolve(x, kernel, padding):
    """Multiplies the patches by the kernel as a matrix; the stride is the kernel's size."""
    *window, _, features = kernel.shape
    x = split_windows(pad(x, padding), window).swapaxes(2, 3)
    matrix = kernel.reshape(-1, features)
    y = x.reshape(math.prod(x.shape[:3]), len(matrix)) @ matrix
    return y.reshape(*x.shape[:3], features)


def banded_convolve(x, kernel, stride, padding):
    """Multiplies tiles of columns by the kernel, laid out as a band; the stride is (1, 1).

    The rows under a row of output lie side by side. `TILE` columns of output and the columns that
    they depend on are one product: its matrix repeats the kernel, shifted by a column each time.
    """
    height, width, channels, features = kernel.shape
    x = pad(x, padding)
    batch, rows, columns = x.shape[0], x.shape[1] - height + 1, x.shape[2] - width + 1
    tile = min(TILE, columns)
    tiles, read = -(-columns // tile), tile + width - 1  # read: columns under a tile
    x = jnp.pad(x, ((0, 0), (0, 0), (0, tiles * tile - columns), (0, 0)))
    x = jnp.stack([x[:, row : row + rows] for row in range(height)], 2)
    x = jnp.stack([x[:, :, :, first : first + read] for first in range(0, tiles * tile, tile)], 2)
    # k, l: kernel; i: column in; t: column out; c: channel; f: feature
    taps_of_columns = taps(read, width, 1, 0, 0).astype(x.dtype)
    band = jnp.einsum("lit,klcf->kictf", taps_of_columns, kernel)
    band = band.reshape(height * read * channels, tile * features)
    y = x.reshape(batch * rows * tiles, len(band)) @ band
    return y.reshape(batch, rows, tiles * tile, features)[:, :, :columns]


def dense_convolve(x, kernel, stride, padding):
    """Multiplies each channel's flattened image by a matrix; as many groups as channels."""
    rows, columns = (
        taps(*sizes, *pads).astype(x.dtype)
        for *sizes, pads in zip(x.shape[1:3], kernel.shape[:2], stride, padding, strict=True)
    )
    # i, j: pixel in; p, q: pixel out; k, l: kernel; c: channel
    matrix = jnp.einsum("kip,ljq,klc->cijpq", rows, columns, kernel[:, :, 0])
    channels, *pixels_in, height, width = matrix.shape
    images = x.reshape(x.shape[0], math.prod(pixels_in), channels).transpose(2, 0, 1)
    y = images @ matrix.reshape(channels, math.prod(pixels_in), height * width)
    return y.transpose(1, 2, 0).reshape(x.shape[0], height, width, channels)


def expanded_convolve(x, kernel, stride, padding, groups):
    """Convolves all channels with a kernel that is zero between groups."""
    height, width, channels, features = kernel.shape
    kernel = kernel.reshape(height, width, channels, groups, features // groups)
    between = jnp.eye(groups, dtype=kernel.dtype)
    # k, l: kernel; g, h: group of channels, of features; c: channel, f: feature within its group
    kernel = jnp.einsum("klchf,gh->klgchf", kernel, between)
    kernel = kernel.reshape(height, width, groups * channels, features)
    return fitted_convolve(x, kernel, stride, padding)


def split_windows(x, window):
    """Returns the windows: (batch, rows, window height, columns, window width, channels)."""
    (height, width), (batch, *pixels, channels) = window, x.shape
    rows, columns = pixels[0] // height, pixels[1] // width
    x = x[:, : rows * height, : columns * width]  # no window reaches the rest
    return x.reshape(batch, rows, height, columns, width, channels)


def pad(x, padding):
    """Returns images with zeros around them."""
    return jnp.pad(x, ((0, 0), *padding, (0, 0)))


def taps(pixels, size, step, before, after):
    """Returns (size, pixels in, pixels out), 1 where element k connects pixel i to output p."""
    outputs = (before + pixels + after - size) // step + 1
    element, pixel, output = np.ogrid[:size, :pixels, :outputs]
    return pixel == output * step - before + element
