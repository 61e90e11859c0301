"""Convolution and maximum over windows, each in its fastest form.

XLA has one operator for all convolutions. On a CPU it takes 10 to 100 times as long as necessary
where channels are convolved separately. There `convolve` chooses another form:

    patches    stride = kernel: windows do not overlap, so the image is split into patches and
               multiplied by the kernel as a matrix. This includes 1x1 convolutions.
    dense      depthwise, small images: per channel, the flattened image times the kernel expanded
               to one (pixels in, pixels out) matrix. On an NVIDIA GPU, too.
    shifted    depthwise on a CPU, larger images: the sum over the kernel's elements of the image,
               shifted, times that element. XLA compiles it to one loop that reads the image once.
    expanded   groups of channels on a CPU: as a convolution of all channels with a kernel that is
               zero between groups. It multiplies by many zeros, at many times the speed.
    fitted     all others on a CPU: XLA's own operator; where its gradients would be wrong or crash
               the process, the image is first padded and cropped to the pixels under the windows.
    plain      everything else on other devices.

All forms agree in value and gradient (tests/model/test_modules.py); benchmarks/layers.py measures
them. Inside `plain_operators()` only XLA's own operators are used.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

GPU_DENSE_PIXELS = 256  # largest image of the dense form there
DENSE_PIXELS = (
    2.5  # on a CPU: largest ratio of image pixels to kernel pixels; above, too many zeros
)
SHIFTED_TERMS = 128  # largest number of kernel pixels and of pixels in a row: each is compiled

_plain = jax.make_user_context(False)  # unlike a global, part of the key of jit's caches


def plain_operators():
    """Returns a context in which convolutions and pooling are XLA's own operators.

    Converters to other formats recognise these operators. Jitted functions are traced again:

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
        groups: number of groups of channels that are convolved separately

    Returns: (batch, output height, output width, features)
    """
    plain = functools.partial(_plain_convolve, stride=stride, padding=padding, groups=groups)
    if _plain.value:
        return plain(x, kernel)
    if groups == 1 and kernel.shape[:2] == stride:
        return _patches_convolve(x, kernel, padding)
    form = _form_on_cpu(x.shape, kernel.shape, groups)
    forms = {"cpu": functools.partial(form, stride=stride, padding=padding)}
    if kernel.shape[2] == 1 and kernel.shape[3] == groups and _pixels(x) <= GPU_DENSE_PIXELS:
        forms["cuda"] = functools.partial(_dense_convolve, stride=stride, padding=padding)
    return lax.platform_dependent(x, kernel, **forms, default=plain)


def window_maximum(x, window, stride, padding):
    """Returns the maximum in each window; arguments and result have the shapes of `convolve`.

    On a CPU its gradient is ten times as fast as that of XLA's operator. Windows that do not
    overlap are axes of a reshaped image; otherwise it is the maximum of shifted views, first along
    the height, then along the width. Equal maxima share the gradient.
    """
    lowest = jnp.array(-jnp.inf, x.dtype)
    padding = ((0, 0), *padding, (0, 0))
    if _plain.value:
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *stride, 1), padding)
    x = lax.pad(x, lowest, [(low, high, 0) for low, high in padding])
    if window == stride:
        return _split_windows(x, window).max((2, 4))
    for axis, size, step in zip((1, 2), window, stride, strict=True):
        last = (x.shape[axis] - size) // step * step  # where the last window starts
        views = [lax.slice_in_dim(x, first, first + last + 1, step, axis) for first in range(size)]
        x = functools.reduce(jnp.maximum, views)
    return x


def _pixels(images):
    return images.shape[1] * images.shape[2]


def _form_on_cpu(image, kernel, groups):
    """Returns the fastest form for these shapes."""
    _, height, width, channels = image
    *window, _, features = kernel
    if groups == 1:
        return _fitted_convolve
    if not groups == channels == features:
        return functools.partial(_expanded_convolve, groups=groups)
    if height * width <= DENSE_PIXELS * math.prod(window):
        return _dense_convolve
    if max(math.prod(window), width) <= SHIFTED_TERMS:
        return _shifted_convolve
    return functools.partial(_fitted_convolve, groups=groups)


def _plain_convolve(x, kernel, stride, padding, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=stride,
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _fitted_convolve(x, kernel, stride, padding, groups=1):
    sizes = tuple(zip(x.shape[1:3], kernel.shape[:2], stride, padding, strict=True))
    # jaxlib 0.10.2 has errors where windows skip pixels, and where a window, or a part of the
    # kernel, covers only padding. Elsewhere XLA's own padding is faster.
    all_meet_pixels = all(max(pads) < size <= pixels + min(pads) for pixels, size, _, pads in sizes)
    if stride != (1, 1) or not all_meet_pixels:
        x, padding = _pad(x, padding), ((0, 0), (0, 0))
        height, width = (
            (pixels + before + after - size) // step * step + size
            for pixels, size, step, (before, after) in sizes
        )
        x = x[:, :height, :width]
    return _plain_convolve(x, kernel, stride, padding, groups)


def _patches_convolve(x, kernel, padding):
    height, width, _, features = kernel.shape
    x = _split_windows(_pad(x, padding), (height, width)).swapaxes(2, 3)
    return x.reshape(*x.shape[:3], -1) @ kernel.reshape(-1, features)


def _dense_convolve(x, kernel, stride, padding):
    rows, columns = (
        _taps(*sizes, *pads).astype(x.dtype)
        for *sizes, pads in zip(x.shape[1:3], kernel.shape[:2], stride, padding, strict=True)
    )
    # i, j: pixel in; p, q: pixel out; k, l: kernel; c: channel; b: example
    matrix = jnp.einsum("kip,ljq,klc->cijpq", rows, columns, kernel[:, :, 0])
    return jnp.einsum("bijc,cijpq->bpqc", x, matrix)


def _expanded_convolve(x, kernel, stride, padding, groups):
    height, width, channels, features = kernel.shape
    kernel = kernel.reshape(height, width, channels, groups, features // groups)
    between = jnp.eye(groups, dtype=kernel.dtype)
    # k, l: kernel; g, h: group of channels, of features; c: channel, f: feature within its group
    kernel = jnp.einsum("klchf,gh->klgchf", kernel, between)
    kernel = kernel.reshape(height, width, groups * channels, features)
    return _fitted_convolve(x, kernel, stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifted_convolve(x, kernel, stride, padding):
    """Defines its own gradients, since the derived ones are slow: no jax.jvp and no hessian."""
    return _slide(_pad(x, padding), kernel, stride)


def _shifted_forward(x, kernel, stride, padding):
    return _shifted_convolve(x, kernel, stride, padding), (x, kernel)


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
    return to_x, _correlate(_pad(x, padding), grads, window, stride).astype(kernel.dtype)


_shifted_convolve.defvjp(_shifted_forward, _shifted_backward)


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


def _split_windows(x, window):
    """Returns the windows: (batch, rows, window height, columns, window width, channels)."""
    (height, width), (batch, *pixels, channels) = window, x.shape
    rows, columns = pixels[0] // height, pixels[1] // width
    x = x[:, : rows * height, : columns * width]  # no window reaches the rest
    return x.reshape(batch, rows, height, columns, width, channels)


def _pad(x, padding):
    return jnp.pad(x, ((0, 0), *padding, (0, 0)))


def _taps(pixels, size, step, before, after):
    """Returns (size, pixels in, pixels out), 1 where element k connects pixel i to output p."""
    outputs = (before + pixels + after - size) // step + 1
    element, pixel, output = np.ogrid[:size, :pixels, :outputs]
    return pixel == output * step - before + element
