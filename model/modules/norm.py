"""Normalisation. Statistics are computed in float32; outputs have the dtype of x."""

import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import ones, zeros

from model.modules.core import Layers, as_float, located


def layer_norm(x, epsilon=1e-5, *, params=None, key=None, train=False):
    """Normalises each position's features to mean 0 and variance 1, then scales and shifts them.

    https://arxiv.org/abs/1607.06450

    Args:
        x: (..., features)
        epsilon: added to the variance, to avoid division by zero

    Returns:
        y: (..., features)
        params: scale (features,), bias (features,)
    """
    layer = Layers(params, key, train)
    x = as_float(x, "...", "features")
    y = _standardise(x.astype(jnp.float32), -1, epsilon)
    return _scale_and_shift(layer, y).astype(x.dtype), layer.params


def rms_norm(x, epsilon=1e-5, *, params=None, key=None, train=False):
    """Normalises each position's features to mean square 1, then scales them.

    https://arxiv.org/abs/1910.07467

    Args:
        x: (..., features)
        epsilon: added to the mean square, to avoid division by zero

    Returns:
        y: (..., features)
        params: scale (features,)
    """
    layer = Layers(params, key, train)
    x = as_float(x, "...", "features")
    y = x.astype(jnp.float32)
    y = y * lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + epsilon)
    return (y * layer.array("scale", x.shape[-1:], ones)).astype(x.dtype), layer.params


def group_norm(x, groups=32, epsilon=1e-5, *, params=None, key=None, train=False):
    """Normalises each group of an example's channels to mean 0 and variance 1, over all positions.

    https://arxiv.org/abs/1803.08494

    Args:
        x: (batch, ..., channels)
        groups: number of groups that the channels are split into
        epsilon: added to the variance

    Returns:
        y: (batch, ..., channels)
        params: scale (channels,), bias (channels,)

    Raises:
        ValueError: the groups do not divide the channels.
    """
    layer = Layers(params, key, train)
    x = as_float(x, "batch", "...", "channels")
    batch, channels = x.shape[0], x.shape[-1]
    if channels % groups:
        raise ValueError(
            f"{located('group_norm')}: {groups} groups do not divide {channels} channels."
        )
    y = x.astype(jnp.float32).reshape(batch, -1, groups, channels // groups)
    y = _standardise(y, (1, 3), epsilon).reshape(x.shape)
    return _scale_and_shift(layer, y).astype(x.dtype), layer.params


def batch_norm(x, momentum=0.9, epsilon=1e-5, *, params=None, key=None, train=False):
    """Normalises each channel to mean 0 and variance 1 over the batch, then scales and shifts it.

    With `train=True` it uses the statistics of the batch, and returns the running ones moved
    towards them; otherwise it uses the running ones. https://arxiv.org/abs/1502.03167

    Args:
        x: (batch, ..., channels)
        momentum: weight of the old running statistics in each step, in [0, 1]
        epsilon: added to the variance

    Returns:
        y: (batch, ..., channels)
        params: scale (channels,), bias (channels,), stats: mean (channels,), variance (channels,)
    """
    layer = Layers(params, key, train)
    x = as_float(x, "batch", "...", "channels")
    y = x.astype(jnp.float32)
    mean, variance = layer("stats", _statistics, y, momentum)
    y = (y - mean) * lax.rsqrt(variance + epsilon)
    return _scale_and_shift(layer, y).astype(x.dtype), layer.params


def _statistics(x, momentum, *, params=None, key=None, train=False):
    """Returns the mean and variance to normalise with, and the running ones as params."""
    layer = Layers(params, key, train)
    running = (
        layer.array("mean", x.shape[-1:], zeros),
        layer.array("variance", x.shape[-1:], ones),
    )
    if not train:
        return running, layer.params
    axes = tuple(range(x.ndim - 1))
    mean, variance = x.mean(axes), x.var(axes)
    # The variance of a sample underestimates that of the population by (count - 1) / count.
    count = x.size // x.shape[-1]
    unbiased = variance * (count / max(count - 1, 1))
    moved = [
        momentum * old + (1 - momentum) * lax.stop_gradient(new)
        for old, new in zip(running, (mean, unbiased), strict=True)
    ]
    return (mean, variance), dict(zip(layer.params, moved, strict=True))


def _standardise(x, axes, epsilon):
    x = x - x.mean(axes, keepdims=True)
    return x * lax.rsqrt(jnp.square(x).mean(axes, keepdims=True) + epsilon)


def _scale_and_shift(layer, x):
    features = x.shape[-1:]
    return x * layer.array("scale", features, ones) + layer.array("bias", features, zeros)
