"""ConvNeXt, "A ConvNet for the 2020s" (https://arxiv.org/abs/2201.03545). The names are timm's."""

from functools import partial

import jax.numpy as jnp
from jax.nn.initializers import constant

from model.modules import (
    Layers,
    as_float,
    conv2d,
    drop_path,
    global_average_pool,
    layer_norm,
    linear,
    stack,
)
from model.zoo.names import CONVNEXT as NAMES  # noqa: F401
from model.zoo.vit import SMALL, mlp

norm = partial(layer_norm, epsilon=1e-6)


def convnext_tiny(x, classes=1000, drop_rate=0.0, *, params=None, key=None, train=False):
    """Returns `convnext` of the size T."""
    return convnext(x, classes=classes, drop_rate=drop_rate, params=params, key=key, train=train)


def convnext(
    x,
    depths=(3, 3, 9, 3),
    features=(96, 192, 384, 768),
    classes=1000,
    drop_rate=0.0,
    *,
    params=None,
    key=None,
    train=False,
):
    """Classifies images with depthwise convolutions and an MLP at each position.

    Args:
        x: (batch, channels, height, width) images
        depths: number of blocks of each stage
        features: number of features of each stage
        classes: number of classes; None returns (batch, features), what the last layer gets
        drop_rate: probability of skipping a block for an example while training

    Returns:
        logits: (batch, classes)
        params: stem, stages/<stage>/downsample, stages/<stage>/blocks/<block>, head
    """
    layer = Layers(params, key, train)
    x = jnp.moveaxis(as_float(x, "batch", "channels", "height", "width"), 1, -1)
    x = layer("stem", stack, x, [partial(patches, features=features[0], size=4), norm])
    stages = [
        partial(stage, features=wide, depth=depth, down=index > 0, drop_rate=drop_rate)
        for index, (depth, wide) in enumerate(zip(depths, features, strict=True))
    ]
    x = layer("stages", stack, x, stages)
    x = layer("pool", global_average_pool, x)
    return layer("head", classify, x, classes), layer.params


def stage(x, features, depth, down, drop_rate, *, params=None, key=None, train=False):
    """Halves height and width if `down`, then calls the blocks."""
    layer = Layers(params, key, train)
    if down:
        x = layer("downsample", stack, x, [norm, partial(patches, features=features, size=2)])
    blocks = [partial(block, drop_rate=drop_rate)] * depth
    return layer("blocks", stack, x, blocks), layer.params


def block(x, drop_rate=0.0, *, params=None, key=None, train=False):
    """Mixes positions, then features, and adds them to x, (batch, height, width, features)."""
    layer = Layers(params, key, train)
    features = x.shape[-1]
    y = layer("conv_dw", conv2d, x, features, 7, padding=3, groups=features, initializer=SMALL)
    y = layer("mlp", mlp, layer("norm", norm, y))
    y = y * layer.array("gamma", (features,), constant(1e-6)).astype(y.dtype)
    return x + layer("drop_path", drop_path, y, drop_rate), layer.params


def patches(x, features, size, *, params=None, key=None, train=False):
    """Makes one position of each patch of size x size."""
    layer = {"params": params, "key": key, "train": train}
    return conv2d(x, features, size, size, "VALID", initializer=SMALL, **layer)


def classify(x, classes, *, params=None, key=None, train=False):
    """Returns (batch, classes) of (batch, features); without classes, the latter, normalised."""
    layer = Layers(params, key, train)
    x = layer("norm", norm, x)
    if classes is not None:
        x = layer("fc", linear, x, classes, initializer=SMALL)
    return x, layer.params
