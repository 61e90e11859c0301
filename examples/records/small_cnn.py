"""A small convolutional network for MNIST, with BatchNorm throughout."""

import jax.numpy as jnp
from jax.nn import relu

from model.modules import (
    Layers,
    as_float,
    batch_norm,
    conv2d,
    global_average_pool,
    linear,
    max_pool,
)


def small_cnn(x, feat_dims=(16, 26, 32), classes=10, *, params=None, key=None, train=False):
    """Classifies small images.

    Args:
        x: (batch, channels, height, width) images
        feat_dims: numbers of features at half and at a quarter of the size, and before the head
        classes: number of classes

    Returns:
        logits: (batch, classes)
        params: 13,926 parameters for 28 x 28 x 1
    """
    layer = Layers(params, key, train)
    x = as_float(x, "batch", "channels", "height", "width")
    x = jnp.moveaxis(x, 1, -1)
    half, quarter, last = feat_dims
    x = layer("stem", unit, x, half, 5, stride=2)
    x = x + layer("half", unit, x, half, 3)
    x = layer("widen", unit, x, quarter, 3)
    x = max_pool(x, 2)[0]
    x = x + layer("quarter", unit, x, quarter, 3)
    x = layer("last", unit, x, last, 1)
    x = layer("pool", global_average_pool, x)
    return layer("head", linear, x, classes), layer.params


def unit(x, features, size, stride=1, *, params=None, key=None, train=False):
    """Convolves, normalises over the batch and cuts off what is negative."""
    layer = Layers(params, key, train)
    x = layer("conv", conv2d, x, features, size, stride=stride, bias=False)
    return relu(layer("norm", batch_norm, x)), layer.params
