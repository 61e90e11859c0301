"""Layers with one matrix of weights: linear and embedding."""

import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, normal, zeros

from model.modules.core import Layers, as_float, located
from model.modules.operators import matmul

LECUN_NORMAL = lecun_normal()  # variance 1 / inputs, so that y has the variance of x


def linear(x, features, bias=True, initializer=LECUN_NORMAL, *, params=None, key=None, train=False):
    """Multiplies the last axis by a matrix and adds a bias.

    Args:
        x: (..., input features)
        features: number of output features
        bias: whether to add a learned number to each feature
        initializer: `initializer(key, shape)` makes the matrix

    Returns:
        y: (..., features)
        params: kernel (input features, features), bias (features,)
    """
    layer = Layers(params, key, train)
    x = as_float(x, "...", "features")
    kernel = layer.array("kernel", (x.shape[-1], features), initializer)
    y = matmul(x, kernel.astype(x.dtype))
    if bias:
        y = y + layer.array("bias", (features,), zeros).astype(x.dtype)
    return y, layer.params


def embedding(x, vocabulary, features, *, params=None, key=None, train=False):
    """Returns the row of a table for each integer.

    Args:
        x: (...) integers from 0 to vocabulary - 1; all others give NaN
        vocabulary: number of rows
        features: length of a row

    Returns:
        y: (..., features)
        params: table (vocabulary, features)

    Raises:
        ValueError: x is not an array of integers.
    """
    layer = Layers(params, key, train)
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"{located('embedding')}: expected an input of integers, got {x.dtype}.")
    table = layer.array("table", (vocabulary, features), normal(features**-0.5))
    return jnp.where((x >= 0)[..., None], jnp.take(table, x, axis=0), jnp.nan), layer.params
