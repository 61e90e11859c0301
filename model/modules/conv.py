"""Convolution of images."""

from jax.nn.initializers import zeros

from model.modules.core import Layers, as_float, located
from model.modules.dense import LECUN_NORMAL
from model.modules.geometry import pad_widths, pair
from model.modules.operators import convolve


def conv2d(
    x,
    features,
    kernel_size,
    stride=1,
    padding="SAME",
    groups=1,
    bias=True,
    initializer=LECUN_NORMAL,
    *,
    params=None,
    key=None,
    train=False,
):
    """Convolves each image: returns the product of the kernel with each window.

    Args:
        x: (batch, height, width, channels)
        features: number of output channels
        kernel_size: in pixels, one integer or (vertical, horizontal)
        stride: in pixels, one integer or (vertical, horizontal)
        padding: "SAME", "VALID", or pixels of zeros as for `pad_widths`
        groups: number of groups of channels that are convolved separately; as many groups as
            channels make the convolution depthwise
        bias: whether to add a learned number to each feature
        initializer: `initializer(key, shape)` makes the kernel

    Returns:
        y: (batch, output height, output width, features)
        params: kernel (kernel height, kernel width, channels // groups, features), bias (features,)

    Raises:
        ValueError: the kernel does not fit the image, or groups do not divide the channels.
    """
    layer = Layers(params, key, train)
    x = as_float(x, "batch", "height", "width", "channels")
    channels, window, stride = x.shape[-1], pair(kernel_size), pair(stride)
    if channels % groups or features % groups:
        raise ValueError(
            f"{located('conv2d')}: {groups} groups do not divide "
            f"{channels} channels into {features} features."
        )
    widths = pad_widths("conv2d", x, window, stride, padding)
    kernel = layer.array("kernel", (*window, channels // groups, features), initializer)
    y = convolve(x, kernel.astype(x.dtype), stride, widths, groups)
    if bias:
        y = y + layer.array("bias", (features,), zeros).astype(x.dtype)
    return y, layer.params
