"""Your networks. Each is a function that a config can name; add yours here.

    logits, params = mnist_model(x, key=jax.random.key(0))  # makes the parameters
    logits, params = mnist_model(x, params=params)  # applies them

Images are (batch, channels, height, width); inside a network, channels are last.
"""

import jax.numpy as jnp
from jax.nn import gelu
from jax.nn.initializers import truncated_normal

from model.modules import (
    Layers,
    as_float,
    attention,
    conv2d,
    drop_path,
    dropout,
    global_average_pool,
    layer_norm,
    linear,
)

SMALL = truncated_normal(0.02)  # of heads: at first, all classes are about equally likely


def mnist_model(
    x, feat_dims=(8, 16, 32), classes=10, drop_rate=0.0, *, params=None, key=None, train=False
):
    """Classifies images with a small ConvNeXt (https://arxiv.org/abs/2201.03545).

    Args:
        x: (batch, channels, height, width) images
        feat_dims: number of features in each stage; each stage halves height and width
        classes: number of classes
        drop_rate: probability of skipping a block for an example while training

    Returns:
        logits: (batch, classes)
        params: the network's parameters
    """
    layer = Layers(params, key, train)
    x = as_float(x, "batch", "channels", "height", "width")
    x = jnp.moveaxis(x, 1, -1)  # channels last; a single channel moves no data
    x = layer("stem", conv2d, x, feat_dims[0], 4, stride=4, padding="VALID", bias=False)
    x = layer("stem_norm", layer_norm, x)
    for stage, features in enumerate(feat_dims):
        if stage > 0:
            x = layer(f"down{stage}", downsample, x, features)
        x = layer(f"stage{stage}", convnext_block, x, drop_rate)
    x = layer("pool", global_average_pool, x)
    x = layer("norm", layer_norm, x)
    x = gelu(layer("hidden", linear, x, 64))
    return layer("head", linear, x, classes, initializer=SMALL), layer.params


def convnext_block(x, drop_rate=0.0, *, params=None, key=None, train=False):
    """Mixes positions, then features, and adds the result to its input.

    Args:
        x: (batch, height, width, features)
        drop_rate: probability of skipping the block for an example while training

    Returns:
        y: (batch, height, width, features)
        params: the block's parameters
    """
    layer = Layers(params, key, train)
    features = x.shape[-1]
    y = layer("depthwise", conv2d, x, features, 7, groups=features, bias=False)
    y = layer("norm", layer_norm, y)
    y = gelu(layer("expand", conv2d, y, 2 * features, 1, bias=False))
    y = layer("project", conv2d, y, features, 1, bias=False)
    return x + layer("drop", drop_path, y, drop_rate), layer.params


def downsample(x, features, *, params=None, key=None, train=False):
    """Halves height and width.

    Args:
        x: (batch, height, width, channels)
        features: number of output channels

    Returns:
        y: (batch, height / 2, width / 2, features)
        params: the layer's parameters
    """
    layer = Layers(params, key, train)
    x = layer("norm", layer_norm, x)
    # "VALID" drops the last row and column of odd sizes; "SAME" would pad them.
    x = layer("conv", conv2d, x, features, 2, stride=2, padding="VALID", bias=False)
    return x, layer.params


def mlp(x, feat_dims=(128, 64), classes=10, drop_rate=0.0, *, params=None, key=None, train=False):
    """Classifies inputs of any shape with fully connected layers.

    Args:
        x: (batch, ...); each example is flattened
        feat_dims: number of features in each hidden layer
        classes: number of classes
        drop_rate: probability of dropping a hidden feature while training

    Returns:
        logits: (batch, classes)
        params: the network's parameters
    """
    layer = Layers(params, key, train)
    x = as_float(x, "batch", "features", "...")
    x = x.reshape(x.shape[0], -1)
    for index, features in enumerate(feat_dims):
        x = gelu(layer(f"hidden{index}", linear, x, features))
        x = layer(f"drop{index}", dropout, x, drop_rate)
    return layer("head", linear, x, classes, initializer=SMALL), layer.params


def vit(
    x,
    patch=7,
    features=64,
    depth=4,
    heads=4,
    classes=10,
    drop_rate=0.0,
    *,
    params=None,
    key=None,
    train=False,
):
    """Classifies images with a small Vision Transformer (https://arxiv.org/abs/2010.11929).

    Args:
        x: (batch, channels, height, width) images
        patch: height and width of the patches that an image is split into, in pixels
        features: number of features of each patch
        depth: number of transformer blocks
        heads: number of attention heads; they share the features equally
        classes: number of classes
        drop_rate: probability of skipping half a block for an example while training

    Returns:
        logits: (batch, classes)
        params: the network's parameters
    """
    layer = Layers(params, key, train)
    x = as_float(x, "batch", "channels", "height", "width")
    x = jnp.moveaxis(x, 1, -1)
    x = layer("patches", conv2d, x, features, patch, stride=patch, padding="VALID")
    x = x.reshape(x.shape[0], -1, features)
    x = x + layer.array("position", x.shape[1:], SMALL).astype(x.dtype)
    for index in range(depth):
        x = layer(f"block{index}", transformer_block, x, heads, drop_rate=drop_rate)
    x = layer("norm", layer_norm, x)
    x = layer("pool", global_average_pool, x)
    return layer("head", linear, x, classes, initializer=SMALL), layer.params


def transformer_block(x, heads, mask=None, drop_rate=0.0, *, params=None, key=None, train=False):
    """Applies self-attention, then an MLP to each position, each with a residual connection.

    Args:
        x: (batch, length, features)
        heads: number of attention heads
        mask: booleans as for `attention`, True where a position may attend
        drop_rate: probability of skipping each half for an example while training

    Returns:
        y: (batch, length, features)
        params: the block's parameters
    """
    layer = Layers(params, key, train)
    y = layer("attention_norm", layer_norm, x)
    y = layer("attention", attention, y, heads, mask=mask)
    x = x + layer("attention_drop", drop_path, y, drop_rate)
    y = layer("norm", layer_norm, x)
    y = gelu(layer("expand", linear, y, 4 * x.shape[-1]))
    y = layer("project", linear, y, x.shape[-1])
    return x + layer("drop", drop_path, y, drop_rate), layer.params
