"""What the tests of layers share."""

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import reject

from model.modules import (
    Layers,
    attention,
    average_pool,
    batch_norm,
    conv2d,
    drop_path,
    dropout,
    embedding,
    global_average_pool,
    group_norm,
    layer_norm,
    linear,
    max_pool,
    rms_norm,
)
from model.modules.geometry import pad_widths
from tests.helpers import reference
from tests.helpers.project import examples

KEY = jax.random.key(0)


def normal(*shape, seed=0, scale=1.0, offset=0.0):
    values = np.random.default_rng(seed).normal(offset, scale, shape)
    return values.astype(np.float32)


def assert_equal(tree, other, **tolerance):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    compare = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
    jax.tree.map(lambda a, b: compare(a, b, **tolerance), tree, other)


FEW = examples(8)


IMAGES = normal(3, 8, 6, 4)


TOKENS = normal(2, 5, 8)


# name: (layer, input, arguments, parameters with their shapes)
LAYERS = {
    "linear": (linear, TOKENS, (3,), {"kernel": (8, 3), "bias": (3,)}),
    "conv2d": (conv2d, IMAGES, (6, 3), {"kernel": (3, 3, 4, 6), "bias": (6,)}),
    "depthwise": (conv2d, IMAGES, (4, 3, 1, 1, 4), {"kernel": (3, 3, 1, 4), "bias": (4,)}),
    "patches": (conv2d, IMAGES, (6, 2, 2), {"kernel": (2, 2, 4, 6), "bias": (6,)}),
    "embedding": (embedding, np.arange(6).reshape(2, 3), (7, 4), {"table": (7, 4)}),
    "layer_norm": (layer_norm, TOKENS, (), {"scale": (8,), "bias": (8,)}),
    "rms_norm": (rms_norm, TOKENS, (), {"scale": (8,)}),
    "group_norm": (group_norm, IMAGES, (2,), {"scale": (4,), "bias": (4,)}),
    "batch_norm": (
        batch_norm,
        IMAGES,
        (),
        {"scale": (4,), "bias": (4,), "stats": {"mean": (4,), "variance": (4,)}},
    ),
    "attention": (
        attention,
        TOKENS,
        (2,),
        {name: {"kernel": (8, 8), "bias": (8,)} for name in ("query", "key", "value", "output")},
    ),
    "dropout": (dropout, TOKENS, (0.5,), {}),
    "drop_path": (drop_path, TOKENS, (0.5,), {}),
    "max_pool": (max_pool, IMAGES, (2,), {}),
    "average_pool": (average_pool, IMAGES, (2,), {}),
    "global_average_pool": (global_average_pool, IMAGES, (), {}),
}


def for_layers(chosen):
    """Runs a test for each layer that `chosen(input, shapes)` chooses."""
    names = [name for name, (_, x, _, shapes) in LAYERS.items() if chosen(x, shapes)]
    cases = [LAYERS[name] for name in names]
    return pytest.mark.parametrize(("layer", "x", "hyper", "shapes"), cases, ids=names)


every_layer = for_layers(lambda x, shapes: True)


every_layer_with_parameters = for_layers(lambda x, shapes: shapes)


def network(x, layer, *hyper, params=None, key=None, train=False):
    """One layer two names deep, to see what paths are reported."""
    layers = Layers(params, key, train)

    def inner(x, *, params=None, key=None, train=False):
        layers = Layers(params, key, train)
        return layers("inner", layer, x, *hyper), layers.params

    return layers("outer", inner, x), layers.params


def close(ours, theirs, tolerance=2e-5):
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


sizes = st.integers(1, 9)


pairs = st.tuples(st.integers(1, 5), st.integers(1, 5))


strides = st.tuples(st.integers(1, 3), st.integers(1, 3))


margins = st.tuples(st.integers(0, 2), st.integers(0, 2))


paddings = st.one_of(
    st.sampled_from(["SAME", "VALID"]), st.integers(0, 2), margins, st.tuples(margins, margins)
)


def check_against_numpy(height, width, channels, features, size, stride, padding, groups):
    """The chosen form has NumPy's values, and its gradients are those of NumPy's sum.

    A convolution is linear in the image and in the kernel. So the gradient of a weighted sum of the
    result, times any other image or kernel, is that sum for this other one.
    """
    x, kernel = normal(2, height, width, channels), normal(*size, channels // groups, features)
    try:
        widths = pad_widths("conv2d", x, size, stride, padding)
    except ValueError:
        reject()

    def convolution(x, kernel):
        params = {"kernel": kernel}
        return conv2d(x, features, size, stride, padding, groups, bias=False, params=params)[0]

    def weights(y):
        return np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape)

    @jax.jit
    def value_and_gradients(x, kernel):
        y, pull_back = jax.vjp(convolution, x, kernel)
        return y, pull_back(weights(y))

    def expected(x, kernel):
        return reference.conv2d(x, kernel, 0, stride, widths, groups)

    y, gradients = value_and_gradients(x, kernel)
    close(y, expected(x, kernel))
    others = normal(*x.shape, seed=3), normal(*kernel.shape, seed=4)
    for other, gradient, sums in zip(
        others, gradients, (expected(others[0], kernel), expected(x, others[1])), strict=True
    ):
        close((gradient * other).sum(), (weights(y) * sums).sum(), 2e-4)
