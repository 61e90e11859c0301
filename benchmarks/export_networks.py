"""Eight networks that export.py exports, each with a difficulty for converters.

All parameters are random, not initial values: a bias of 0 or a scale of 1 would hide an operator
that is missing or in the wrong place.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import gelu, relu, silu, softmax

from model.model import SMALL, mlp, mnist_model, vit
from model.modules import (
    Layers,
    batch_norm,
    conv2d,
    embedding,
    global_average_pool,
    group_norm,
    layer_norm,
    linear,
    max_pool,
)

IMAGE = ("input", (1, 28, 28), "float32")
DEVIATION = 0.1  # standard deviation of biases around 0 and of scales around 1


class Example(NamedTuple):
    """A network to export."""

    title: str
    function: Callable  # (inputs..., params) -> outputs
    inputs: tuple  # (name, shape without the batch, dtype) of each
    params: dict
    bound: int  # ONNX operators in a graph written by hand
    counted: str  # explains the bound


def networks():
    """Returns the eight networks."""
    described = [
        ("sample", mnist_model, [IMAGE], 33, "as published: every layer one operator, + layout"),
        ("sample, channels first", channels_first, [IMAGE], 32, "the same without layout"),
        ("LeNet, BatchNorm", lenet, [IMAGE], 12, "BatchNorm inside the convolutions"),
        ("ViT, depth 2", two_blocks, [IMAGE], 56, "3 products for query, key and value"),
        ("MLP", mlp, [IMAGE], 6, "Reshape, Gemm, Gelu, Gemm, Gelu, Gemm"),
        ("GroupNorm, SiLU", group_norms, [IMAGE], 34, "statistics by ReduceMean"),
        ("GRU by scan", gru, [("input", (28, 28), "float32")], 4, "Transpose, GRU, Squeeze, Gemm"),
        (
            "two inputs and outputs",
            two_ends,
            TWO_INPUTS,
            8,
            "Gather, Concat, 3 Gemm, 3 activations",
        ),
    ]
    return [
        Example(title, _applied(function), tuple(inputs), _params(function, inputs), bound, counted)
        for title, function, inputs, bound, counted in described
    ]


def channels_first(x, feat_dims=(8, 16, 32), classes=10, *, params=None, key=None, train=False):
    """Computes the sample with channels first in all layers."""
    layer = Layers(params, key, train)
    x = layer("stem", _conv2d_first, x, feat_dims[0], 4, 4, [(0, 0)] * 2)
    x = layer("stem_norm", _layer_norm_first, x)
    for stage, features in enumerate(feat_dims):
        if stage > 0:
            x = layer(f"down_norm{stage}", _layer_norm_first, x)
            x = layer(f"down{stage}", _conv2d_first, x, features, 2, 2, [(0, 0)] * 2)
        y = layer(f"depthwise{stage}", _conv2d_first, x, features, 7, 1, [(3, 3)] * 2, features)
        y = layer(f"norm{stage}", _layer_norm_first, y)
        y = gelu(layer(f"expand{stage}", _conv2d_first, y, 2 * features, 1, 1, [(0, 0)] * 2))
        x = x + layer(f"project{stage}", _conv2d_first, y, features, 1, 1, [(0, 0)] * 2)
    x = layer("norm", layer_norm, x.mean((2, 3)))
    x = gelu(layer("hidden", linear, x, 64))
    return layer("head", linear, x, classes, initializer=SMALL), layer.params


def lenet(x, *, params=None, key=None, train=False):
    """Computes LeNet-5 with batch normalisation, which converters can fold into the kernels."""
    layer = Layers(params, key, train)
    x = jnp.moveaxis(x, 1, -1)
    for index, features in enumerate((6, 16)):
        x = layer(f"conv{index}", conv2d, x, features, 5, padding="VALID")
        x = relu(layer(f"norm{index}", batch_norm, x))
        x = layer(f"pool{index}", max_pool, x, 2)
    x = x.reshape(x.shape[0], -1)
    for index, features in enumerate((120, 84)):
        x = relu(layer(f"hidden{index}", linear, x, features))
    return layer("head", linear, x, 10), layer.params


def two_blocks(x, *, params=None, key=None, train=False):
    """Computes the Vision Transformer with two blocks."""
    return vit(x, depth=2, params=params, key=key, train=train)


def group_norms(x, *, params=None, key=None, train=False):
    """Computes convolutions with group normalisation and SiLU, as in diffusion models."""
    layer = Layers(params, key, train)
    x = jnp.moveaxis(x, 1, -1)
    for index, features in enumerate((16, 32)):
        x = layer(f"conv{index}", conv2d, x, features, 3, stride=2)
        x = silu(layer(f"norm{index}", group_norm, x, 4))
    x = layer("pool", global_average_pool, x)
    return layer("head", linear, x, 10), layer.params


def gru(x, features=64, *, params=None, key=None, train=False):
    """Reads an image row by row with a gated recurrent unit (https://arxiv.org/abs/1406.1078)."""
    layer = Layers(params, key, train)
    inward = layer("inward", linear, x, 3 * features)  # all rows at once
    kernel = layer.array("kernel", (features, 3 * features), jax.nn.initializers.orthogonal())
    bias = layer.array("bias", (3 * features,), jax.nn.initializers.zeros)

    def step(state, row):
        for_reset, for_update, for_new = jnp.split(row, 3, axis=-1)
        reset, update, new = jnp.split(state @ kernel + bias, 3, axis=-1)
        reset, update = jax.nn.sigmoid(for_reset + reset), jax.nn.sigmoid(for_update + update)
        new = jnp.tanh(for_new + reset * new)
        return (1 - update) * new + update * state, None

    state, _ = jax.lax.scan(step, jnp.zeros((x.shape[0], features)), inward.swapaxes(0, 1))
    return layer("head", linear, state, 10), layer.params


def two_ends(measured, kind, *, params=None, key=None, train=False):
    """Computes a dict of two outputs from numbers and an integer class."""
    layer = Layers(params, key, train)
    kind = layer("kind", embedding, kind, 20, 16)
    x = jnp.concatenate([measured, kind], axis=-1)
    x = relu(layer("hidden", linear, x, 128))
    outputs = {
        "class": softmax(layer("class", linear, x, 10)),
        "value": jnp.tanh(layer("value", linear, x, 3)),
    }
    return outputs, layer.params


TWO_INPUTS = [("measured", (32,), "float32"), ("kind", (), "int32")]


def example_inputs(inputs, batch, seed=0):
    """Returns random arrays for a network's inputs."""
    random = np.random.default_rng(seed)
    return [
        random.integers(0, 20, (batch, *shape), dtype)
        if np.dtype(dtype).kind == "i"
        else random.standard_normal((batch, *shape)).astype(dtype)
        for _, shape, dtype in inputs
    ]


def _applied(function):
    return lambda *inputs, params: function(*inputs, params=params)[0]


def _params(function, inputs):
    """Returns random parameters of the network's shapes, by NumPy, without compiling."""
    random = np.random.default_rng(0)

    def draw(path, leaf):
        values = random.standard_normal(leaf.shape, np.float32)
        if path[-1].key in ("scale", "variance"):
            return 1 + np.float32(DEVIATION) * values
        deviation = DEVIATION if leaf.ndim == 1 else np.prod(leaf.shape[:-1]) ** -0.5
        return np.float32(deviation) * values

    arrays = example_inputs(inputs, 1)
    shapes = jax.eval_shape(lambda *x: function(*x, key=jax.random.key(0))[1], *arrays)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def _conv2d_first(
    x, features, size, stride, padding, groups=1, *, params=None, key=None, train=False
):
    layer = Layers(params, key, train)
    shape = (features, x.shape[1] // groups, size, size)
    kernel = layer.array("kernel", shape, jax.nn.initializers.lecun_normal(in_axis=1, out_axis=0))
    x = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, feature_group_count=groups
    )
    return x, layer.params


def _layer_norm_first(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    centred = x - x.mean(1, keepdims=True)
    x = centred * jax.lax.rsqrt(jnp.square(centred).mean(1, keepdims=True) + 1e-5)
    scale, bias = (
        layer.array(name, x.shape[1:2], getattr(jax.nn.initializers, name_of))
        for name, name_of in (("scale", "ones"), ("bias", "zeros"))
    )
    return x * scale[:, None, None] + bias[:, None, None], layer.params
