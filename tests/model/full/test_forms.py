"""The forms of model/modules/forms/ equal NumPy and XLA's own operators, gradients included."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given

from model.modules import attend, attention, linear, max_pool, operators, plain_operators
from model.modules.forms import convolution
from tests.helpers.layers import (
    FEW,
    KEY,
    check_against_numpy,
    close,
    margins,
    normal,
    paddings,
    pairs,
    sizes,
)


def value_and_gradients(function, *inputs):
    """Returns the value, and the gradients of a weighted sum of it."""

    @jax.jit
    def both(*inputs):
        y, pull_back = jax.vjp(function, *inputs)
        return y, *pull_back(weights_of(y).astype(y.dtype))

    return both(*inputs)


def weights_of(y):
    return jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)


def assert_equals_plain(function, *inputs, tolerance=2e-5):
    """The form equals XLA's own operators."""
    ours = value_and_gradients(function, *inputs)
    with plain_operators():
        plain = value_and_gradients(function, *inputs)
    for one, other in zip(ours, plain, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        np.testing.assert_allclose(one, other, tolerance, tolerance * max(1, np.abs(other).max()))


# --- products ---------------------------------------------------------------------------------


@FEW
@given(st.lists(st.integers(0, 4), max_size=3), st.integers(1, 5), st.integers(1, 5))
def test_linear_equals_numpy_in_value_and_gradient_for_any_number_of_axes(rest, features, wanted):
    x, kernel, bias = normal(*rest, features), normal(features, wanted, seed=1), normal(wanted)

    def apply(x, kernel, bias):
        return linear(x, wanted, params={"kernel": kernel, "bias": bias})[0]

    y, to_x, to_kernel, to_bias = value_and_gradients(apply, x, kernel, bias)
    weights = np.asarray(weights_of(y))
    flat, flat_weights = x.reshape(-1, features), weights.reshape(-1, wanted)
    close(y, x @ kernel + bias)
    close(to_x, weights @ kernel.T)
    close(to_kernel, flat.T @ flat_weights)
    close(to_bias, flat_weights.sum(0))


# --- convolution ------------------------------------------------------------------------------


@FEW
@given(sizes, sizes, st.integers(1, 6), st.integers(1, 6), pairs, paddings)
@example(9, 9, 6, 3, (5, 5), 2)
@example(8, 7, 1, 2, (5, 1), 0)
def test_the_banded_form_equals_numpy(height, width, channels, features, size, padding):
    assume(size != (1, 1))
    form = operators.form_on_cpu((2, height, width, channels), (*size, channels, 1), (1, 1), 1)
    assume(form is convolution.banded_convolve)
    check_against_numpy(height, width, channels, features, size, (1, 1), padding, 1)


def test_few_channels_are_convolved_in_bands_and_many_by_xla():
    def form(channels, size, stride=(1, 1)):
        return operators.form_on_cpu((2, 28, 28, channels), (size, size, channels, 8), stride, 1)

    assert form(1, 5) is form(10, 5) is form(3, 3) is convolution.banded_convolve
    assert form(11, 5) is form(4, 3) is form(1, 5, (2, 1)) is convolution.fitted_convolve


# --- the maximum ------------------------------------------------------------------------------


@FEW
@given(st.integers(2, 9), st.integers(2, 9), pairs, margins, st.integers(1, 3))
def test_the_maximum_of_windows_apart_shares_gradients_among_equals(
    height, width, window, padding, levels
):
    assume(all(2 * pad <= size for pad, size in zip(padding, window, strict=True)))
    down, right = window
    assume(height + 2 * padding[0] >= down and width + 2 * padding[1] >= right)
    x = np.random.default_rng(0).integers(0, levels, (2, height, width, 3)).astype(np.float32)
    y, to_x = value_and_gradients(lambda x: max_pool(x, window, padding=padding)[0], x)
    weights = np.asarray(weights_of(y))
    spare = [(0, 0), *((pad, pad) for pad in padding), (0, 0)]
    padded = np.pad(x, spare, constant_values=-np.inf)
    expected, gradient = np.empty_like(y), np.zeros_like(padded)
    for row, column in np.ndindex(y.shape[1:3]):
        place = np.s_[:, row * down : (row + 1) * down, column * right : (column + 1) * right]
        expected[:, row, column] = padded[place].max((1, 2))
        largest = padded[place] == padded[place].max((1, 2), keepdims=True)
        share = weights[:, row, column][:, None, None] / largest.sum((1, 2), keepdims=True)
        gradient[place] += largest * share
    inside = np.s_[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width]
    close(y, expected)
    close(to_x, gradient[inside])


def test_the_maximum_keeps_bfloat16_in_its_gradient():
    x = np.random.default_rng(0).permutation(189)  # exact in bfloat16, and none twice
    x = jnp.asarray(x.reshape(1, 7, 9, 3), jnp.bfloat16)
    assert_equals_plain(lambda x: max_pool(x, (2, 3))[0], x)


# --- attention --------------------------------------------------------------------------------

MASKS = {
    "none": lambda queries, keys: None,
    "causal": lambda queries, keys: np.tri(queries, keys, dtype=bool),
    "of keys": lambda queries, keys: np.arange(keys) % 2 == 0,
    "of examples": lambda queries, keys: (
        np.array([True, False])[:, None, None, None] | np.tri(queries, keys, -1, dtype=bool)
    ),  # the second example's first query sees nothing
}


@FEW
@given(
    st.integers(1, 5), st.integers(1, 6), st.integers(1, 3), st.integers(1, 5),
    st.sampled_from([*MASKS]), st.sampled_from([jnp.float32, jnp.bfloat16]),
)  # fmt: skip
@example(4, 4, 2, 3, "of examples", jnp.bfloat16)
@example(3, 5, 2, 3, "of keys", jnp.float32)
def test_attention_equals_xlas_in_value_and_gradient(queries, keys, heads, features, mask, dtype):
    shapes = ((2, length, heads, features) for length in (queries, keys, keys))
    inputs = [jnp.asarray(normal(*s, seed=seed), dtype) for seed, s in enumerate(shapes)]
    mask = MASKS[mask](queries, keys)
    tolerance = 2e-5 if dtype == jnp.float32 else 2e-2
    assert_equals_plain(lambda *inputs: attend(*inputs, mask), *inputs, tolerance=tolerance)


def test_attention_has_the_gradient_of_finite_differences():
    with jax.enable_x64(True):
        inputs = [np.random.default_rng(seed).normal(size=(1, 3, 2, 4)) for seed in range(3)]
        mask = np.tri(3, dtype=bool)

        def loss(*inputs):
            y = attend(*inputs, mask)
            return (y * np.cos(np.arange(y.size)).reshape(y.shape)).sum()

        gradients = jax.grad(loss, (0, 1, 2))(*inputs)
        for which, gradient in enumerate(gradients):
            for at in ((0, 1, 0, 2), (0, 2, 1, 3)):
                moved = [[each.copy() for each in inputs] for _ in range(2)]
                moved[0][which][at] += 1e-3
                moved[1][which][at] -= 1e-3
                slope = (loss(*moved[0]) - loss(*moved[1])) / 2e-3
                np.testing.assert_allclose(gradient[at], slope, rtol=1e-3, atol=1e-4)


def test_gradients_of_gradients_equal_xlas():
    x = normal(2, 5, 8)
    _, params = attention(x, 2, key=KEY)

    def penalty(x):
        slope = jax.grad(lambda x: jnp.square(attention(x, 2, params=params)[0]).sum())(x)
        return jnp.square(slope).sum()

    ours = jax.grad(penalty)(x)
    with plain_operators():
        close(ours, jax.grad(penalty)(x), 1e-3)


def test_the_forms_can_be_vmapped():
    x = normal(3, 2, 5, 2, 4)
    together = jax.vmap(lambda x: jax.grad(lambda x: attend(x, x, x).sum())(x))(x)
    singly = [jax.grad(lambda x: attend(x, x, x).sum())(one) for one in x]
    close(together, np.stack(singly))
    images = normal(3, 2, 4, 4, 2)
    together = jax.vmap(jax.grad(lambda x: jnp.square(max_pool(x, 2)[0]).sum()))(images)
    singly = [jax.grad(lambda x: jnp.square(max_pool(x, 2)[0]).sum())(one) for one in images]
    close(together, np.stack(singly))


# --- XLA's own operators ----------------------------------------------------------------------

PLAIN_AND_FORM = {
    "attention": (lambda x: attention(x, 2, key=KEY)[0], normal(2, 5, 8)),
    "max_pool": (lambda x: max_pool(x, 2)[0], normal(2, 4, 4, 3)),
}


@pytest.mark.parametrize("name", PLAIN_AND_FORM)
def test_forward_derivatives_need_plain_operators(name):
    function, x = PLAIN_AND_FORM[name]
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(function, (x,), (x,))
    with plain_operators():
        _, slope = jax.jvp(function, (x,), (np.ones_like(x),))
        assert np.isfinite(slope).all()
        assert "custom_vjp" not in str(jax.make_jaxpr(function)(x))


def test_exports_have_the_product_on_all_axes():
    def text():
        x = jax.ShapeDtypeStruct((2, 5, 8), jnp.float32)
        return jax.jit(lambda x: linear(x, 3, key=KEY, bias=False)[0]).lower(x).as_text()

    assert "tensor<10x8xf32>" in text()
    with plain_operators():
        assert "tensor<10x8xf32>" not in text()
