"""MobileNetV2, EfficientNet-B0 and EfficientNet-Lite0, which consist of the same blocks.

https://arxiv.org/abs/1801.04381, https://arxiv.org/abs/1905.11946; Lite0, for phones, has no
squeeze-and-excitation. The names are those of timm.
"""

from functools import partial

import jax.numpy as jnp
from jax.nn import relu6, sigmoid, silu

from model.modules import (
    Layers,
    as_float,
    batch_norm,
    conv2d,
    drop_path,
    dropout,
    global_average_pool,
    linear,
    stack,
)
from model.zoo.names import EFFICIENTNET as NAMES  # noqa: F401
from model.zoo.resnet import HE

# Of each stage: blocks, kernel size, stride, expansion, features.
MOBILE_STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (3, 3, 2, 6, 32), (4, 3, 2, 6, 64), (3, 3, 1, 6, 96),
    (3, 3, 2, 6, 160), (1, 3, 1, 6, 320),
)  # fmt: skip
EFFICIENT_STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip


def mobilenet_v2(x, classes=1000, drop_rate=0.0, *, params=None, key=None, train=False):
    """Returns `efficientnet` with the blocks of MobileNetV2."""
    layer = {"params": params, "key": key, "train": train}
    return efficientnet(x, MOBILE_STAGES, 0, relu6, classes, drop_rate=drop_rate, **layer)


def efficientnet_b0(
    x, classes=1000, drop_rate=0.0, tensorflow=False, *, params=None, key=None, train=False
):
    """Returns `efficientnet` of the smallest size."""
    hyper = {"classes": classes, "drop_rate": drop_rate, "tensorflow": tensorflow}
    return efficientnet(x, **hyper, params=params, key=key, train=train)


def efficientnet_lite0(
    x, classes=1000, drop_rate=0.0, tensorflow=False, *, params=None, key=None, train=False
):
    """Returns `efficientnet` of the smallest size without squeeze-and-excitation."""
    hyper = {"classes": classes, "drop_rate": drop_rate, "tensorflow": tensorflow}
    layer = {"params": params, "key": key, "train": train}
    return efficientnet(x, EFFICIENT_STAGES, 0, relu6, **hyper, **layer)


def efficientnet(
    x,
    stages=EFFICIENT_STAGES,
    squeeze=0.25,
    activation=silu,
    classes=1000,
    stem=32,
    head=1280,
    drop_rate=0.0,
    tensorflow=False,
    *,
    params=None,
    key=None,
    train=False,
):
    """Classifies images with inverted residual blocks.

    Args:
        x: (batch, channels, height, width) images
        stages: of each: blocks, kernel size, stride, expansion, features
        squeeze: features of squeeze-and-excitation per feature of a block; 0 for none
        activation: function of a block's features
        classes: number of classes; None returns (batch, head), what the classifier gets
        stem: features of the first convolution
        head: features of the last
        drop_rate: probability of skipping a block, and of dropping a feature before the classifier
        tensorflow: whether padding and epsilon are those of weights trained in TensorFlow

    Returns:
        logits: (batch, classes)
        params: conv_stem, bn1, blocks/<stage>/<block>, conv_head, bn2, classifier
    """
    layer = Layers(params, key, train)
    conv = partial(convolve, tensorflow=tensorflow)
    norm = partial(batch_norm, epsilon=1e-3 if tensorflow else 1e-5)
    x = jnp.moveaxis(as_float(x, "batch", "channels", "height", "width"), 1, -1)
    x = activation(layer("bn1", norm, layer("conv_stem", conv, x, stem, 3, 2)))
    block = partial(inverted, conv=conv, norm=norm, activation=activation, squeeze=squeeze,
                    drop_rate=drop_rate)  # fmt: skip
    sequences = []
    for depth, size, stride, expansion, features in stages:
        shape = {"features": features, "size": size, "expansion": expansion}
        strides = (stride,) + (1,) * (depth - 1)
        sequence = [partial(block, **shape, stride=one) for one in strides]
        sequences.append(partial(stack, blocks=sequence))
    x = layer("blocks", stack, x, sequences)
    x = activation(layer("bn2", norm, layer("conv_head", conv, x, head, 1)))
    x = layer("drop", dropout, layer("global_pool", global_average_pool, x), drop_rate)
    return x if classes is None else layer("classifier", linear, x, classes), layer.params


def inverted(
    x, features, size, stride, expansion, conv, norm, activation, squeeze, drop_rate,
    *, params=None, key=None, train=False,
):  # fmt: skip
    """Expands the features, convolves each by itself, and projects them to fewer."""
    layer = Layers(params, key, train)
    wide = expansion * x.shape[-1]
    names = ("conv_dw", "bn1", "conv_pw", "bn2")  # timm's, where nothing is expanded
    y = x
    if expansion != 1:
        y = activation(layer("bn1", norm, layer("conv_pw", conv, y, wide, 1)))
        names = ("conv_dw", "bn2", "conv_pwl", "bn3")
    y = layer(names[0], conv, y, wide, size, stride, groups=wide)
    y = activation(layer(names[1], norm, y))
    if squeeze:
        y = layer("se", excite, y, int(squeeze * x.shape[-1]), activation)
    y = layer(names[3], norm, layer(names[2], conv, y, features, 1))
    if stride != 1 or x.shape[-1] != features:
        return y, layer.params
    return x + layer("drop_path", drop_path, y, drop_rate), layer.params


def excite(x, features, activation, *, params=None, key=None, train=False):
    """Multiplies each feature by what all of them are on average (squeeze-and-excitation)."""
    layer = Layers(params, key, train)
    y = x.mean((1, 2), keepdims=True)
    y = activation(layer("conv_reduce", conv2d, y, features, 1))
    return x * sigmoid(layer("conv_expand", conv2d, y, x.shape[-1], 1)), layer.params


def convolve(
    x, features, size, stride=1, groups=1, tensorflow=False, *, params=None, key=None, train=False
):
    """Returns `conv2d` without a bias, padded by half its size, or as TensorFlow does."""
    padding = "SAME" if tensorflow else size // 2
    return conv2d(
        x, features, size, stride, padding, groups, bias=False, initializer=HE,
        params=params, key=key, train=train,
    )  # fmt: skip
