"""More tests of layers: every form of a convolution, every layer in bfloat16, another process."""

import os
import subprocess
import sys

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given

from model.modules import (
    Layers,
    attention,
    conv2d,
    linear,
    plain_operators,
)
from tests.helpers import reference
from tests.helpers.layers import (
    FEW,
    KEY,
    TOKENS,
    assert_equal,
    check_against_numpy,
    close,
    every_layer,
    every_layer_with_parameters,
    for_layers,
    network,
    normal,
    paddings,
    pairs,
    sizes,
    strides,
)


def test_another_process_makes_the_same_parameters():
    program = (
        "import jax, numpy; from model.modules import linear;"
        "_, params = linear(numpy.ones((1, 8)), 2, key=jax.random.key(3));"
        "print([float(leaf.sum()) for leaf in jax.tree.leaves(params)])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    _, params = linear(np.ones((1, 8)), 2, key=jax.random.key(3))
    assert done.stdout.strip() == str([float(leaf.sum()) for leaf in jax.tree.leaves(params)])


def test_new_kernels_keep_the_variance_of_their_input():
    x = normal(64, 12, 12, 32)
    for y, _ in (linear(x, 256, key=KEY), conv2d(x, 64, 3, padding="VALID", key=KEY)):
        assert 0.9 < np.std(y) < 1.1


def test_the_shifted_form_can_be_vmapped_and_keeps_the_dtype():
    x, kernel = normal(3, 2, 12, 12, 4), normal(3, 5, 5, 1, 4)

    def gradients(x, kernel):
        def loss(x, kernel):
            y, _ = conv2d(x, 4, 5, groups=4, bias=False, params={"kernel": kernel})
            return jnp.square(y.astype(jnp.float32)).sum()

        return jax.grad(loss, (0, 1))(x, kernel)

    batched = jax.vmap(gradients)(x, kernel)
    singly = [gradients(*one) for one in zip(x, kernel, strict=True)]
    assert_equal(batched, jax.tree.map(lambda *leaves: np.stack(leaves), *singly), rtol=1e-5)
    narrow = gradients(x[0].astype(jnp.bfloat16), kernel[0])
    assert [leaf.dtype for leaf in narrow] == [jnp.bfloat16, jnp.float32]
    for ours, exact in zip(narrow, singly[0], strict=True):
        np.testing.assert_allclose(ours, exact, rtol=0.05, atol=0.02 * np.abs(exact).max())


every_layer_of_floats = for_layers(lambda x, shapes: x.dtype == np.float32)


@every_layer
def test_initialising_makes_the_documented_parameters(layer, x, hyper, shapes):
    _, params = layer(x, *hyper, key=KEY)
    assert jax.tree.map(jnp.shape, params) == shapes
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


@every_layer
def test_evaluation_ignores_the_key(layer, x, hyper, shapes):
    y, params = layer(x, *hyper, key=KEY)
    for key in (None, jax.random.key(5)):
        assert_equal(layer(x, *hyper, params=params, key=key), (y, params))


@every_layer_with_parameters
def test_a_misshapen_parameter_is_named_by_its_path_and_shapes(layer, x, hyper, shapes):
    _, params = network(x, layer, *hyper, key=KEY)
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        broken = jax.tree_util.tree_map_with_path(
            lambda other, leaf, path=path: leaf[None] if other == path else leaf, params
        )
        with pytest.raises(ValueError, match=rf"parameter {name} has shape \(1, .* expected shape"):
            network(x, layer, *hyper, params=broken)


@every_layer_of_floats
@pytest.mark.parametrize("train", [False, True])
def test_bfloat16_comes_back_as_bfloat16_with_float32_parameters(layer, x, hyper, shapes, train):
    y, params = layer(x, *hyper, key=KEY, train=train)
    rough, same = layer(x.astype(jnp.bfloat16), *hyper, params=params, key=KEY, train=train)
    assert rough.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(same))
    np.testing.assert_allclose(rough.astype(np.float32), y, rtol=0.05, atol=0.05)


@every_layer_of_floats
def test_integer_pixels_are_converted_to_floats(layer, x, hyper, shapes):
    pixels = np.abs(10 * x).astype(np.uint8)
    y, params = layer(pixels, *hyper, key=KEY)
    assert y.dtype == jnp.float32
    assert_equal(layer(pixels.astype(np.float32), *hyper, params=params)[0], y)


def test_initial_parameters_differ_by_name_and_do_not_depend_on_other_layers():
    def names(x, *names, params=None, key=None, train=False):
        layer = Layers(params, key, train)
        return [layer(name, linear, x, 4) for name in names], layer.params

    _, both = names(TOKENS, "a", "b", key=KEY)
    _, alone = names(TOKENS, "b", key=KEY)
    assert (both["a"]["kernel"] != both["b"]["kernel"]).any()
    assert_equal(both["b"], alone["b"])


large_pairs = st.tuples(st.integers(5, 7), st.integers(5, 7))


@FEW
@given(sizes, sizes, st.integers(1, 4), st.integers(1, 4), pairs, paddings)
def test_patches_equal_numpy(height, width, channels, features, size, padding):
    check_against_numpy(height, width, channels, features, size, size, padding, 1)


@FEW
@given(st.integers(1, 7), st.integers(1, 7), st.integers(2, 4), large_pairs, strides, paddings)
def test_the_dense_form_equals_numpy(height, width, channels, size, stride, padding):
    check_against_numpy(height, width, channels, channels, size, stride, padding, channels)


@FEW
@given(st.integers(9, 14), st.integers(8, 14), st.integers(2, 4), pairs, strides, paddings)
def test_the_shifted_form_equals_numpy(height, width, channels, size, stride, padding):
    check_against_numpy(height, width, channels, channels, size, stride, padding, channels)


@FEW
@given(sizes, sizes, st.integers(2, 3), pairs, pairs, strides, paddings)
@example(1, 4, 3, (1, 2), (3, 2), (1, 1), 1)  # rows of the kernel that meet nothing but padding
def test_the_expanded_form_equals_numpy(height, width, groups, per_group, size, stride, padding):
    channels, features = groups * (1 + per_group[0]), groups * per_group[1]
    check_against_numpy(height, width, channels, features, size, stride, padding, groups)


def lowered(*hyper, pixels=7, platform="cpu"):
    x = jax.ShapeDtypeStruct((2, pixels, pixels, 8), jnp.float32)
    function = jax.jit(lambda x: conv2d(x, 8, *hyper, key=KEY)[0])
    return jax.export.export(function, platforms=[platform])(x).mlir_module()


@pytest.mark.parametrize(
    ("hyper", "platform", "convolution"),
    [
        ((1,), "cpu", False),
        ((2, 2), "cpu", False),
        ((2, 2), "cuda", False),
        ((7, 1, "SAME", 8), "cpu", False),
        ((7, 1, "SAME", 8), "cuda", None),  # the dense form up to 256 pixels
        ((3,), "cpu", True),
        ((3,), "cuda", True),
    ],
)
@pytest.mark.parametrize("pixels", [7, 28])
def test_each_convolution_uses_the_form_for_its_platform(hyper, platform, convolution, pixels):
    text = lowered(*hyper, pixels=pixels, platform=platform)
    convolution = pixels**2 > 256 if convolution is None else convolution
    assert ("stablehlo.convolution" in text) == convolution
    with plain_operators():
        assert "stablehlo.convolution" in lowered(*hyper, pixels=pixels, platform=platform)


def test_attention_equals_numpy_over_a_context_of_another_length():
    x, context, heads = normal(2, 5, 8), normal(2, 7, 6, seed=1), 4
    mask = np.random.default_rng(2).random((2, 1, 5, 7)) < 0.6
    mask[..., 0] = True
    y, params = attention(x, heads, context, mask, key=KEY)
    params = jax.tree.map(np.asarray, params)
    close(y, reference.attention(x, context, params, heads, mask))


@every_layer
@pytest.mark.parametrize("train", [False, True])
def test_no_argument_is_changed(layer, x, hyper, shapes, train):
    _, params = layer(x, *hyper, key=KEY)
    x_before, params_before = x.copy(), jax.tree.map(np.array, params)
    layer(x, *hyper, params=params, key=KEY, train=train)
    assert_equal((x, params), (x_before, params_before))


@FEW
@given(sizes, sizes, st.integers(1, 6), st.integers(1, 6), pairs, strides, paddings)
@example(7, 6, 4, 6, (4, 2), (3, 2), ((1, 0), (1, 1)))  # XLA's operator ends the process
@example(2, 7, 4, 4, (2, 3), (1, 1), ((2, 0), (2, 2)))  # XLA's operator has wrong gradients
def test_the_fitted_form_equals_numpy(height, width, channels, features, size, stride, padding):
    check_against_numpy(height, width, channels, features, size, stride, padding, 1)
