"""ResNet, "Deep Residual Learning for Image Recognition" (https://arxiv.org/abs/1512.03385).

Version 1.5: in a bottleneck the 3x3 convolution has the stride. The parameters' names are
those of torchvision and timm. Their preprocessing: pixels from 0 to 1, normalised by `IMAGENET`.
"""

from functools import partial

import jax.numpy as jnp
from jax.nn import relu
from jax.nn.initializers import variance_scaling

from model.modules import (
    Layers,
    as_float,
    batch_norm,
    conv2d,
    global_average_pool,
    linear,
    max_pool,
    stack,
)
from model.zoo.names import RESNET as NAMES  # noqa: F401

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HE = variance_scaling(2.0, "fan_out", "normal")  # https://arxiv.org/abs/1502.01852


def resnet18(x, classes=1000, *, params=None, key=None, train=False):
    """Returns `resnet` with 18 layers."""
    return resnet(x, (2, 2, 2, 2), classes=classes, params=params, key=key, train=train)


def resnet34(x, classes=1000, *, params=None, key=None, train=False):
    """Returns `resnet` with 34 layers."""
    return resnet(x, (3, 4, 6, 3), classes=classes, params=params, key=key, train=train)


def resnet50(x, classes=1000, *, params=None, key=None, train=False):
    """Returns `resnet` with 50 layers."""
    return resnet(x, (3, 4, 6, 3), True, classes, params=params, key=key, train=train)


def resnet(
    x, depths, bottleneck=False, classes=1000, width=64, *, params=None, key=None, train=False
):
    """Classifies images with residual blocks.

    Args:
        x: (batch, channels, height, width) images
        depths: number of blocks of each stage
        bottleneck: whether blocks have three convolutions, or two
        classes: number of classes; None returns (batch, features), what the last layer gets
        width: number of features of the first stage; each stage has twice those of the one before

    Returns:
        logits: (batch, classes)
        params: conv1, bn1, layer1 to layer4, fc
    """
    layer = Layers(params, key, train)
    x = jnp.moveaxis(as_float(x, "batch", "channels", "height", "width"), 1, -1)
    x = relu(layer("bn1", batch_norm, layer("conv1", conv, x, width, 7, 2)))
    x = layer("maxpool", max_pool, x, 3, 2, 1)
    block = bottleneck_block if bottleneck else basic_block
    for stage, depth in enumerate(depths):
        strides = [2 if stage and not index else 1 for index in range(depth)]
        blocks = [partial(block, features=width * 2**stage, stride=stride) for stride in strides]
        x = layer(f"layer{stage + 1}", stack, x, blocks)
    x = layer("avgpool", global_average_pool, x)
    return x if classes is None else layer("fc", linear, x, classes), layer.params


def basic_block(x, features, stride=1, *, params=None, key=None, train=False):
    """Adds to x what two 3x3 convolutions make of it: (batch, height, width, features)."""
    layer = Layers(params, key, train)
    y = relu(layer("bn1", batch_norm, layer("conv1", conv, x, features, 3, stride)))
    y = layer("bn2", batch_norm, layer("conv2", conv, y, features, 3))
    return relu(shortcut(layer, x, features, stride) + y), layer.params


def bottleneck_block(x, features, stride=1, *, params=None, key=None, train=False):
    """Adds to x what three convolutions make of it: (batch, height, width, 4 * features)."""
    layer = Layers(params, key, train)
    y = relu(layer("bn1", batch_norm, layer("conv1", conv, x, features, 1)))
    y = relu(layer("bn2", batch_norm, layer("conv2", conv, y, features, 3, stride)))
    y = layer("bn3", batch_norm, layer("conv3", conv, y, 4 * features, 1))
    return relu(shortcut(layer, x, 4 * features, stride) + y), layer.params


def shortcut(layer, x, features, stride):
    """Returns x, projected where the block changes its shape."""
    if stride == 1 and x.shape[-1] == features:
        return x
    projection = partial(conv, features=features, size=1, stride=stride)
    return layer("downsample", stack, x, [projection, batch_norm])


def conv(x, features, size, stride=1, *, params=None, key=None, train=False):
    """Returns `conv2d` without a bias, padded by half its size on every side, as in PyTorch."""
    return conv2d(
        x, features, size, stride, size // 2, bias=False, initializer=HE,
        params=params, key=key, train=train,
    )  # fmt: skip
