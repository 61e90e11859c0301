import re

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given

from model.modules import (
    Layers,
    attend,
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
    plain_operators,
    rms_norm,
    watch_layers,
)
from tests.helpers import reference
from tests.helpers.layers import (
    FEW,
    IMAGES,
    KEY,
    TOKENS,
    assert_equal,
    close,
    every_layer,
    every_layer_with_parameters,
    margins,
    network,
    normal,
    pairs,
    sizes,
    strides,
)

# --- what holds for every layer ---------------------------------------------------------------


@every_layer
def test_initialising_equals_applying(layer, x, hyper, shapes):
    y, params = layer(x, *hyper, key=KEY)
    again, same = layer(x, *hyper, params=params)
    assert_equal((again, same), (y, params))


@every_layer_with_parameters
def test_without_parameters_or_key_the_error_quotes_the_call_to_make(layer, x, hyper, shapes):
    name = layer.__name__
    quoted = rf"{name}: params=None .* {name}\(x, \.\.\., key=jax\.random\.key\(0\)\)"
    with pytest.raises(ValueError, match=quoted):
        layer(x, *hyper)


@every_layer_with_parameters
def test_a_missing_parameter_is_named_by_its_path(layer, x, hyper, shapes):
    _, params = network(x, layer, *hyper, key=KEY)
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        names = [entry.key for entry in path]
        broken = jax.tree.map(lambda leaf: leaf, params)
        parent = broken
        for name in names[:-1]:
            parent = parent[name]
        del parent[names[-1]]
        with pytest.raises(ValueError, match=f"parameter {'/'.join(names)} is missing"):
            network(x, layer, *hyper, params=broken)


def test_params_that_are_not_a_dict_are_reported_by_path():
    _, params = network(TOKENS, linear, 3, key=KEY)
    params["outer"]["inner"] = params["outer"]["inner"]["kernel"]
    with pytest.raises(ValueError, match=r"linear \(layer outer/inner\): .* dict of named"):
        network(TOKENS, linear, 3, params=params)


# --- Layers -----------------------------------------------------------------------------------


def test_the_same_name_twice_shares_the_parameters():
    def tied(x, *, params=None, key=None, train=False):
        layer = Layers(params, key, train)
        return layer("mix", linear, layer("mix", linear, x, 8), 8), layer.params

    y, params = tied(TOKENS, key=KEY)
    assert jax.tree.map(jnp.shape, params) == {"mix": {"kernel": (8, 8), "bias": (8,)}}
    kernel = params["mix"]["kernel"]
    close(y, TOKENS @ kernel @ kernel)
    assert_equal(tied(TOKENS, params=params), (y, params))


def test_a_name_shared_by_arrays_of_two_shapes_is_reported():
    layer = Layers(None, KEY, False)
    layer.array("shift", (3,), jax.nn.initializers.zeros)
    with pytest.raises(ValueError, match=r"shift has shape \(3,\), expected shape \(4,\)"):
        layer.array("shift", (4,), jax.nn.initializers.zeros)


def test_every_name_and_every_call_has_its_own_random_numbers():
    def drops(x, *, params=None, key=None, train=False):
        layer = Layers(params, key, train)
        names = ("first", "second", "second")
        return [layer(name, dropout, x, 0.5) for name in names], layer.params

    masks = [np.asarray(y) for y in drops(np.ones(100), key=KEY, train=True)[0]]
    for i in range(3):
        for j in range(i):
            assert (masks[i] != masks[j]).any()
    assert_equal([np.asarray(y) for y in drops(np.ones(100), key=KEY, train=True)[0]], masks)


def test_watchers_see_each_layer_with_its_path_only_while_watching():
    seen = []
    with watch_layers(lambda path, y, params: seen.append((path, y.shape, sorted(params)))):
        jax.eval_shape(lambda x: network(x, linear, 3, key=KEY), TOKENS)
    jax.eval_shape(lambda x: network(x, linear, 3, key=KEY), TOKENS)
    assert seen == [
        ("outer/inner", (2, 5, 3), ["bias", "kernel"]),
        ("outer", (2, 5, 3), ["inner"]),
    ]


@pytest.mark.parametrize(
    ("layer", "x", "hyper", "axes"),
    [
        (conv2d, normal(8, 6, 4), (6, 3), "batch, height, width, channels"),
        (max_pool, normal(8, 6, 4), (2,), "batch, height, width, channels"),
        (average_pool, normal(8, 6), (2,), "batch, height, width, channels"),
        (attention, normal(8, 6), (2,), "batch, queries, features"),
        (batch_norm, normal(8), (), "batch, ..., channels"),
        (group_norm, normal(8), (2,), "batch, ..., channels"),
        (global_average_pool, normal(8), (), "batch, ..., channels"),
        (linear, np.float32(1), (3,), "..., features"),
    ],
)
def test_an_input_of_the_wrong_rank_is_reported_with_path_and_axes(layer, x, hyper, axes):
    message = (
        f"{layer.__name__} (layer outer/inner): "
        f"expected an input of shape ({axes}), got {np.shape(x)}."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        network(x, layer, *hyper, key=KEY)


@pytest.mark.parametrize(
    ("layer", "x", "hyper", "message"),
    [
        (conv2d, IMAGES, (6, 9, 1, "VALID"), r"window of \(9, 9\) does not fit .* \(8, 6\)"),
        (conv2d, IMAGES, (6, 3, 1, "same"), "padding is 'same', expected \"SAME\""),
        (conv2d, IMAGES, (6, 3, 1, "SAME", 3), "3 groups do not divide 4 channels"),
        (max_pool, IMAGES, (9,), r"window of \(9, 9\) does not fit"),
        (group_norm, IMAGES, (3,), "3 groups do not divide 4 channels"),
        (attention, TOKENS, (3,), "3 heads do not divide 8 features"),
        (attention, TOKENS, (2, None, np.ones((5, 5))), "mask of booleans .* got float64"),
        (attention, TOKENS, (2, None, np.ones((2, 5), bool)), r"got bool of shape \(2, 5\)"),
        (embedding, TOKENS, (7, 4), "expected an input of integers, got float32"),
        (dropout, TOKENS, (1.0,), "rate is 1.0, expected 0 <= rate < 1"),
        (drop_path, TOKENS, (-0.1,), "rate is -0.1, expected 0 <= rate < 1"),
    ],
)
def test_arguments_that_do_not_fit_are_reported_with_the_path(layer, x, hyper, message):
    with pytest.raises(ValueError, match=rf"{layer.__name__} \(layer outer/inner\).*{message}"):
        network(x, layer, *hyper, key=KEY)


# --- linear and embedding ---------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_a_matrix_product_over_the_last_axis(bias):
    params = {"kernel": normal(8, 3, seed=1)} | ({"bias": normal(3, seed=2)} if bias else {})
    y, _ = linear(TOKENS, 3, bias=bias, params=params)
    close(y, np.einsum("btf,fg->btg", TOKENS, params["kernel"]) + params.get("bias", 0))


def test_embedding_looks_up_rows():
    indices = np.array([[0, 6], [3, 3]])
    y, params = embedding(indices, 7, 4, key=KEY)
    close(y, np.asarray(params["table"])[indices])


@pytest.mark.parametrize("index", [-1, 7])
def test_an_index_outside_the_vocabulary_is_nan_and_not_another_row(index):
    y, _ = embedding(np.array([index, 2]), 7, 4, key=KEY)
    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1]).all()


# --- convolution ------------------------------------------------------------------------------


@FEW
@given(sizes, sizes, pairs, strides, margins, st.sampled_from([1, 2, 4]), st.integers(1, 3))
def test_convolutions_equal_numpy(height, width, size, stride, padding, groups, multiplier):
    assume(height + 2 * padding[0] >= size[0] and width + 2 * padding[1] >= size[1])
    x, features = normal(2, height, width, 4), 4 * multiplier
    kernel, bias = normal(*size, 4 // groups, features, seed=1), normal(features, seed=2)
    params = {"kernel": kernel, "bias": bias}
    y, _ = conv2d(x, features, size, stride, padding, groups, params=params)
    close(y, reference.conv2d(x, kernel, bias, stride, padding, groups))


def test_a_jitted_function_is_traced_again_inside_plain_operators():
    traces, params = [], {"kernel": normal(3, 3, 1, 4)}

    @jax.jit
    def run(x):
        traces.append(x)
        return max_pool(conv2d(x, 4, 3, groups=4, bias=False, params=params)[0], 2)[0]

    y = run(IMAGES)
    with plain_operators():
        plain = run(IMAGES)
    run(IMAGES)
    assert len(traces) == 2
    close(y, plain)


# --- pooling ----------------------------------------------------------------------------------


@FEW
@given(st.integers(4, 9), st.integers(4, 9), st.integers(1, 4), strides, st.integers(0, 2))
def test_max_pool_equals_numpy_in_value_and_gradient(height, width, size, stride, padding):
    assume(padding <= size // 2)
    x = normal(2, height, width, 3)
    expected, expected_gradient = reference.max_pool(x, size, stride, padding)

    def loss(x):
        y, _ = max_pool(x, size, stride, padding)
        return jnp.square(y).sum(), y

    @jax.jit
    def both(x):
        with plain_operators():
            plain = jax.grad(loss, has_aux=True)(x)
        return jax.grad(loss, has_aux=True)(x), plain

    for gradient, y in both(x):
        close(y, expected)
        close(gradient, expected_gradient)


def test_equal_maxima_share_the_gradient():
    gradient = jax.grad(lambda x: max_pool(x, 2)[0].sum())(jnp.zeros((1, 2, 2, 1)))
    assert_equal(gradient, jnp.full((1, 2, 2, 1), 0.25))


@FEW
@given(st.integers(4, 9), st.integers(4, 9), st.integers(1, 4), strides, st.integers(0, 2))
def test_average_pool_equals_numpy_without_counting_padding(height, width, size, stride, padding):
    assume(padding <= size // 2)
    x = normal(2, height, width, 3)
    expected = reference.average_pool(x, size, stride, padding)
    close(average_pool(x, size, stride, padding)[0], expected)


def test_same_padding_keeps_the_last_row_of_an_odd_size():
    x = normal(1, 7, 5, 2)
    assert max_pool(x, 2, padding="SAME")[0].shape == (1, 4, 3, 2)
    assert_equal(max_pool(x, 2, padding="SAME")[0][0, -1, -1], x[0, -1, -1])


@pytest.mark.parametrize("shape", [(3, 8, 6, 4), (3, 5, 4), (3, 4)])
def test_global_average_pool_is_the_mean_over_positions(shape):
    x = normal(*shape)
    close(global_average_pool(x)[0], x.reshape(3, -1, 4).mean(1))


# --- normalisation ----------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_norms_equal_numpy_even_far_from_zero(offset):
    x = normal(3, 8, 6, 4, offset=offset)
    params = {"scale": normal(4, seed=1), "bias": normal(4, seed=2)}
    scale, bias = params["scale"], params["bias"]

    y, _ = layer_norm(x, 1e-3, params=params)
    close(y, reference.standardise(x, -1, 1e-3) * scale + bias, 2e-3)
    y, _ = rms_norm(x, 1e-3, params={"scale": scale})
    exact = x.astype(np.float64)
    close(y, exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-3) * scale)
    y, _ = group_norm(x, 2, 1e-3, params=params)
    grouped = reference.standardise(x.reshape(3, 8, 6, 2, 2), (1, 2, 4), 1e-3)
    close(y, grouped.reshape(x.shape) * scale + bias, 2e-3)


def test_batch_norm_equals_numpy_step_by_step():
    _, params = batch_norm(IMAGES, key=KEY)
    mean, variance = np.zeros(4), np.ones(4)
    for seed in range(3):
        x = normal(3, 8, 6, 4, seed=seed, scale=1 + seed, offset=seed)
        y, params = batch_norm(x, 0.8, 1e-3, params=params, train=True)
        close(y, reference.standardise(x, (0, 1, 2), 1e-3))
        exact = x.astype(np.float64).reshape(-1, 4)
        mean, variance = (
            0.8 * mean + 0.2 * exact.mean(0),
            0.8 * variance + 0.2 * exact.var(0, ddof=1),
        )
        close(params["stats"]["mean"], mean)
        close(params["stats"]["variance"], variance)
    y, same = batch_norm(x, 0.8, 1e-3, params=params)
    close(y, (x - mean) / np.sqrt(variance + 1e-3))
    assert_equal(same, params)


def test_batch_norm_of_a_single_value_is_finite():
    y, params = batch_norm(np.ones((1, 4)), key=KEY, train=True)
    assert np.isfinite(y).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_running_statistics_of_bfloat16_are_kept_in_float32():
    x = normal(256, 4, scale=0.01, offset=3.0).astype(jnp.bfloat16)
    _, params = batch_norm(x, 0.0, key=KEY, train=True)
    exact = np.asarray(x, np.float64)
    close(params["stats"]["mean"], exact.mean(0))
    close(params["stats"]["variance"], exact.var(0, ddof=1))


# --- attention --------------------------------------------------------------------------------


def test_with_a_causal_mask_later_positions_have_no_gradient():
    length = TOKENS.shape[1]
    mask = np.tril(np.ones((length, length), bool))
    _, params = attention(TOKENS, 2, key=KEY)

    def outputs(x):
        return attention(x, 2, mask=mask, params=params)[0].sum(-1)

    jacobian = jax.jit(jax.jacobian(outputs))(TOKENS)
    flow = np.abs(jacobian[0, :, 0]).sum(-1)  # from each input (column) to each output (row)
    assert (flow[~mask] == 0).all()
    assert (flow[mask] > 0).all()


def test_masked_positions_have_no_influence():
    mask = np.array([True, True, False, True, False])
    y, params = attention(TOKENS, 2, TOKENS, mask, key=KEY)
    context = TOKENS.copy()
    context[:, ~mask] = 1e6
    assert_equal(attention(TOKENS, 2, context, mask, params=params)[0], y)


@jax.jit
def attend_and_gradients(queries, keys, values, mask):
    y, pull_back = jax.vjp(lambda *inputs: attend(*inputs, mask), queries, keys, values)
    return y, *pull_back(y)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e15])
def test_attention_is_finite_for_large_logits_and_for_a_fully_masked_query(dtype, scale):
    queries, keys, values = (
        (scale**power * normal(1, 4, 2, 8, seed=seed)).astype(dtype)
        for seed, power in enumerate((1, 1, 0))
    )
    mask = np.tril(np.ones((4, 4), bool), -1)  # the first query may look nowhere
    y, *gradients = attend_and_gradients(queries, keys, values, mask)
    assert (y[:, 0] == 0).all()
    assert all(np.isfinite(part.astype(np.float32)).all() for part in (y, *gradients))

    exact = [np.asarray(part, np.float64) for part in (queries, keys, values)]
    logits = np.einsum("bqhd,bkhd->bhqk", *exact[:2])[:, :, 1:] / np.sqrt(8)
    logits = np.where(mask[1:], logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    close(y[:, 1:].astype(np.float32), np.einsum("bhqk,bkhd->bqhd", weights, exact[2]), tolerance)


# --- dropping ---------------------------------------------------------------------------------


def test_dropout_drops_single_features_at_the_rate_and_keeps_the_mean():
    y = np.asarray(dropout(np.ones((100, 1000)), 0.2, key=KEY, train=True)[0])
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - 0.2))}
    assert abs((y == 0).mean() - 0.2) < 0.01
    assert abs(y.mean() - 1) < 0.01


def test_drop_path_drops_whole_examples_at_the_rate_and_keeps_the_mean():
    y = np.asarray(drop_path(np.ones((10_000, 3, 2)), 0.2, key=KEY, train=True)[0])
    assert (y == y[:, :1, :1]).all()
    assert abs((y == 0).mean() - 0.2) < 0.02
    assert abs(y.mean() - 1) < 0.02


@pytest.mark.parametrize("layer", [dropout, drop_path])
def test_dropping_while_training_needs_a_key_unless_nothing_is_dropped(layer):
    with pytest.raises(ValueError, match=rf"{layer.__name__}: .* needs a key. Call y, params ="):
        layer(TOKENS, 0.5, train=True)
    assert_equal(layer(TOKENS, 0.0, train=True), (TOKENS, {}))
