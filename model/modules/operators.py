"""Matrix product, convolution, maximum over windows and attention, each in its fastest form.

XLA's own operators are slow on a CPU for some shapes, mostly in their gradients. There these
functions choose another form of `model/modules/forms/`, one file for each kind of operator:

    matmul     the product with a matrix, on two axes rather than more.
    convolve
      patches    stride = kernel: windows do not overlap, so the image is split into patches and
                 multiplied by the kernel as a matrix. This includes 1x1 convolutions.
      banded     few channels, stride 1: some columns of output at once, as the product of the
                 pixels under them and a matrix that repeats the kernel.
      dense      depthwise, small images: per channel, the flattened image times the kernel expanded
                 to one (pixels in, pixels out) matrix. On an NVIDIA GPU, too.
      shifted    depthwise, larger images: the sum over the kernel's elements of the image,
                 shifted, times that element. XLA compiles it to one loop that reads the image once.
      expanded   groups of channels: as a convolution of all channels with a kernel that is zero
                 between groups. It multiplies by many zeros, at many times the speed.
      fitted     all others: XLA's own operator; where its gradients would be wrong or crash the
                 process, the image is first padded and cropped to the pixels under the windows.
    window_maximum
      apart      windows that do not overlap: axes of a reshaped image, with a gradient of its own.
      overlapping  the maximum of shifted views.
    attend     heads before positions, with a gradient of its own.

On other devices they are XLA's own operators (`plain`), but for matmul, patches and maxima. All
forms agree in value and gradient (tests/model/full/test_forms.py); benchmarks/layers.py measures
them, and benchmarks/README.md has the figures of each processor. Inside `plain_operators()` only
XLA's own operators are used. Those with a gradient of their own (shifted, apart, attend) have no
`jax.jvp` and no hessian outside of it.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from model.modules.forms import attention, convolution, pooling
from model.modules.forms.shifted import shifted_convolve

GPU_DENSE_PIXELS = 256  # largest image of the dense form there
DENSE_PIXELS = (
    2.5  # on a CPU: largest ratio of image pixels to kernel pixels; above, too many zeros
)
SHIFTED_TERMS = 128  # largest number of kernel pixels and of pixels in a row: each is compiled
BANDED_CHANNELS = 10  # largest number of channels in
BANDED_RATIO = 0.4  # largest ratio of channels in to kernel pixels; above, XLA's own is faster

_plain = jax.make_user_context(False)  # unlike a global, part of the key of jit's caches


def plain_operators():
    """Returns a context in which all operators are XLA's own.

    Converters to other formats recognise these operators. Jitted functions are traced again:

        with plain_operators():
            exported = jax.export.export(jax.jit(network))(x)
    """
    return _plain(True)


def matmul(x, matrix):
    """Multiplies the last axis of x by a matrix.

    XLA's gradients of a product with more than two axes take 1.25 to 1.6 times as long on an AMD
    EPYC, and 1.09 on an Intel Xeon (a whole vision transformer).

    Args:
        x: (..., features in)
        matrix: (features in, features out)

    Returns: (..., features out)
    """
    if _plain.value or x.ndim <= 2:
        return x @ matrix
    *sizes, features = x.shape
    return (x.reshape(math.prod(sizes), features) @ matrix).reshape(*sizes, matrix.shape[1])


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
    plain = functools.partial(
        convolution.plain_convolve, stride=stride, padding=padding, groups=groups
    )
    if _plain.value:
        return plain(x, kernel)
    if groups == 1 and kernel.shape[:2] == stride:
        return convolution.patches_convolve(x, kernel, padding)
    form = form_on_cpu(x.shape, kernel.shape, stride, groups)
    forms = {"cpu": functools.partial(form, stride=stride, padding=padding)}
    if kernel.shape[2] == 1 and kernel.shape[3] == groups and _pixels(x) <= GPU_DENSE_PIXELS:
        dense = functools.partial(convolution.dense_convolve, stride=stride, padding=padding)
        forms["cuda"] = dense
    return lax.platform_dependent(x, kernel, **forms, default=plain)


def window_maximum(x, window, stride, padding):
    """Returns the maximum in each window; arguments and result have the shapes of `convolve`.

    On a CPU its gradient is ten times as fast as that of XLA's operator. Equal maxima share it.
    """
    lowest = jnp.array(-jnp.inf, x.dtype)
    padding = ((0, 0), *padding, (0, 0))
    if _plain.value:
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *stride, 1), padding)
    x = lax.pad(x, lowest, [(low, high, 0) for low, high in padding])
    if window == stride:
        return pooling.apart_maximum(x, window)
    return pooling.overlapping_maximum(x, window, stride)


def attend(queries, keys, values, mask):
    """Returns softmax(queries · keys / sqrt(features)) · values; see `model.modules.attend`."""
    if _plain.value:
        return attention.plain_attend(queries, keys, values, mask)
    return lax.platform_dependent(
        queries, keys, values, mask,
        cpu=attention.heads_first_attend, default=attention.plain_attend,
    )  # fmt: skip


def form_on_cpu(image, kernel, stride, groups):
    """Returns the fastest form of a convolution for these shapes."""
    _, height, width, channels = image
    *window, _, features = kernel
    pixels = math.prod(window)
    if groups == 1:
        few = channels <= min(BANDED_CHANNELS, BANDED_RATIO * pixels)
        banded = few and stride == (1, 1)
        return convolution.banded_convolve if banded else convolution.fitted_convolve
    if not groups == channels == features:
        return functools.partial(convolution.expanded_convolve, groups=groups)
    if height * width <= DENSE_PIXELS * pixels:
        return convolution.dense_convolve
    if max(pixels, width) <= SHIFTED_TERMS:
        return shifted_convolve
    return functools.partial(convolution.fitted_convolve, groups=groups)


def _pixels(images):
    return images.shape[1] * images.shape[2]
