"""The rewrites between JAX and the exported files, in the files' own runtimes."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from flax import linen, nnx
from jax import lax

from inference.export.converter import import_tensorflow, tflite_of, to_raw_onnx, to_tflite
from inference.export.network import Array, describe, lower
from inference.export.worker import Worker
from inference.graph.jax_graph import exportable
from inference.graph.jax_substitutes import erf
from inference.graph.onnx_direct import to_onnx
from inference.graph.onnx_graph import finish
from inference.verify.runtimes import load
from model import modules
from model.modules import conv2d, embedding, layer_norm
from utils import UserError

FLOAT = np.dtype("float32")
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def converter(tmp_path_factory):
    """TensorFlow, once for all tests."""
    with Worker(tmp_path_factory.mktemp("converter") / "log.txt", import_tensorflow) as converter:
        yield converter


@pytest.fixture
def files(converter, tmp_path):
    """Exports a function, checks both files against JAX at three batch sizes, and loads them."""

    def files(function, *shapes, dtype=FLOAT, high=5, tolerance=2e-6):
        inputs = [Array(f"x{at}", shape, np.dtype(dtype)) for at, shape in enumerate(shapes)]
        network = describe(function, inputs)
        content = converter.run(to_tflite, [lower(network, 2), lower(network, 3)], network.names)
        (tmp_path / "network.tflite").write_bytes(content)
        content = finish(converter.run(to_raw_onnx, content), network.names)
        (tmp_path / "network.onnx").write_bytes(content)
        both = [load(tmp_path / f"network.{suffix}", 1) for suffix in ("tflite", "onnx")]
        for batch in (1, 3, 64):
            arrays = {one.name: draw((batch, *one.shape), one.dtype, high) for one in inputs}
            expected = network.function(*arrays.values())
            for loaded in both:
                outputs = loaded.run(arrays)
                for one, values in zip(network.outputs, expected, strict=True):
                    scale = max(1, np.abs(values).max())
                    np.testing.assert_allclose(
                        outputs[one.name] / scale, values / scale, atol=tolerance
                    )
        return both

    return files


@pytest.fixture
def onnx_graph(tmp_path):
    """Returns the graph of the latest .onnx file of `files`."""
    return lambda: onnx.load(tmp_path / "network.onnx").graph


def body_of(graph, kind):
    """The body of the single loop of a kind."""
    (node,) = (node for node in graph.node if node.op_type == kind)
    return next(one.g for one in node.attribute if one.name == "body")


def draw(shape, dtype, high):
    if dtype.kind == "i":
        return RANDOM.integers(0, high, shape, dtype)
    return RANDOM.standard_normal(shape).astype(dtype)


def array(*shape):
    return jnp.asarray(RANDOM.standard_normal(shape), jnp.float32)


def lowered(function, *shapes):
    return lower(describe(function, [Array("x", shape, FLOAT) for shape in shapes]), 2)


def test_a_mean_that_keeps_its_axes_is_one_operator(files):
    tflite, onnx_file = files(lambda x: jnp.exp(-x.mean(-1, keepdims=True)) + x, (4, 6))
    assert tflite.operators == Counter(MEAN=1, NEG=1, EXP=1, ADD=1)
    assert onnx_file.operators["Reshape"] == 0


def test_an_output_of_a_rewrite_keeps_its_name(files):
    tflite, onnx_file = files(lambda x: {"mean": x.mean(-1, keepdims=True)}, (4, 6))
    assert list(tflite.outputs) == list(onnx_file.outputs) == ["mean"]


def test_an_input_untouched_is_an_output_even_twice(files):
    files(lambda x, mask: {"mean": x.mean(-1), "mask": mask, "again": mask}, (4, 6), (4, 6))
    files(lambda x: (x, x), (3,))


def test_softmax_is_one_operator(files):
    tflite, onnx_file = files(jax.nn.softmax, (4,))
    assert tflite.operators == Counter(SOFTMAX=1)
    assert onnx_file.operators == Counter(Softmax=1)


def test_layer_norm_is_one_operator_of_onnx(files):
    params = {"scale": array(6), "bias": array(6)}
    _, onnx_file = files(lambda x: layer_norm(x, params=params)[0], (4, 6))
    assert onnx_file.operators == Counter(LayerNormalization=1)


def test_layer_norm_over_another_axis_is_left_unchanged(files):
    def network(x):
        centred = x - x.mean(1, keepdims=True)
        return centred * lax.rsqrt(jnp.square(centred).mean(1, keepdims=True) + 1e-5)

    _, onnx_file = files(network, (4, 6))
    assert onnx_file.operators["LayerNormalization"] == 0


def test_transpositions_around_elementwise_operators_cancel(files):
    scale, kernel = array(6, 1, 1), array(6, 6, 3, 3)

    def network(x):
        y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME")
        y = y - y.mean(1, keepdims=True)
        y = jnp.tanh(y * scale)
        return lax.conv_general_dilated(y, kernel, (1, 1), "SAME").mean((2, 3))

    tflite, onnx_file = files(network, (6, 5, 5))
    assert tflite.operators["TRANSPOSE"] == 1  # of the input
    assert onnx_file.operators["Transpose"] == 3  # behind either convolution, and before the second


def test_transpositions_that_meet_no_other_are_kept(files):
    tflite, _ = files(lambda x: jnp.tanh(jnp.swapaxes(x, 1, 2)), (4, 6))
    assert tflite.operators == Counter(TRANSPOSE=1, TANH=1)


def test_embedding_is_one_lookup_and_refuses_what_has_no_row(files):
    table = {"table": array(7, 4)}
    tflite, onnx_file = files(
        lambda x: embedding(x, 7, 4, params=table)[0], (3,), dtype="int32", high=7
    )
    assert tflite.operators == Counter(GATHER=1)
    assert onnx_file.operators == Counter(Gather=1, Less=1, Where=1)  # below 0 there is no row
    for bad in (7, -1, -8):
        with pytest.raises(Exception, match=r"out of bounds|positive"):
            tflite.run({"x0": np.int32([[0, 1, bad]])})
        with pytest.raises(Exception, match="out of data bounds"):
            onnx_file.run({"x0": np.int32([[0, 1, bad]])})


def test_a_lookup_with_negative_indices_counts_from_the_end(files):
    table = array(7, 4)
    tflite, _ = files(lambda x: jnp.take(table, x - 3, axis=0), (3,), dtype="int32", high=7)
    assert tflite.operators["SELECT_V2"] <= 1


def test_where_with_nan_is_not_taken_for_the_check_of_a_lookup(files):
    tflite, _ = files(lambda x: jnp.where(x > 9, jnp.nan, x), (4,))
    assert tflite.operators["SELECT_V2"] + tflite.operators["SELECT"] == 1


def test_a_scan_reads_its_row_and_splits_with_one_operator_each(files, onnx_graph):
    kernel = array(4, 12) / 4

    def network(x):
        def step(state, row):
            a, b, c = jnp.split(state @ kernel + row, 3, axis=-1)
            return jnp.tanh(a) * jax.nn.sigmoid(b) + c / 4, None

        return lax.scan(step, jnp.zeros((x.shape[0], 4)), x.swapaxes(0, 1))[0]

    tflite, onnx_file = files(network, (5, 12))
    assert tflite.operators["WHILE"] == 1
    assert onnx_file.operators["Scan"] == 1
    kinds = Counter(node.op_type for node in body_of(onnx_graph(), "Scan").node)
    assert kinds["Split"] == 1
    assert "Gather" not in kinds  # the operator itself reads the rows


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_reads_rows_and_stacks_them_in_both_directions(files, onnx_graph, reverse):
    kernel = array(4, 4) / 2

    def network(x):
        def step(state, row):
            state = jnp.tanh(state @ kernel + row)
            return state, 2 * state

        start = jnp.zeros((x.shape[0], 4))
        last, stacked = lax.scan(step, start, x.swapaxes(0, 1), reverse=reverse)
        return {"last": last, "stacked": stacked.swapaxes(0, 1)}

    _, onnx_file = files(network, (5, 4))
    assert onnx_file.operators["Scan"] == 1
    body = body_of(onnx_graph(), "Scan")
    assert Counter(node.op_type for node in body.node) == Counter(Gemm=1, Tanh=1, Mul=1)


def test_of_a_count_and_a_constant_state_a_scan_keeps_only_the_count(files, onnx_graph):
    def network(x):
        def step(carry, row):
            number, total, same = carry
            return (number + 2, total + row * number * same, same), None

        start = (1, jnp.zeros((x.shape[0], 4)), jnp.exp(x[:, 0]))
        return lax.scan(step, start, x[:, 1:].swapaxes(0, 1))[0][1]

    files(network, (5, 4))
    assert len(body_of(onnx_graph(), "Scan").output) == 2


def test_a_counted_loop_that_reads_no_rows_stops_by_its_count(files, onnx_graph):
    kernel = array(4, 4) / 2
    files(lambda x: lax.fori_loop(0, 5, lambda i, y: jnp.tanh(y @ kernel + i), x), (4,))
    kinds = Counter(node.op_type for node in body_of(onnx_graph(), "Loop").node)
    assert "Less" not in kinds


def test_a_loop_inside_a_scan_and_one_without_a_count_keep_their_values(files):
    def halve(x):
        return lax.while_loop(lambda y: jnp.abs(y).max() > 1, lambda y: y / 2, x)

    def network(x):
        def step(state, row):
            inner = lax.scan(lambda y, _: (jnp.sin(y + row), None), state, length=3)[0]
            return inner, inner

        rows = lax.scan(step, jnp.zeros((x.shape[0], 4)), x.swapaxes(0, 1))[1]
        return {"rows": rows.swapaxes(0, 1), "halved": halve(jnp.clip(x, -1, 1) * 0.5)}

    files(network, (5, 4))


def test_clipping_keeps_its_values_by_itself_and_fused_into_another_operator(files):
    kernel = array(4, 3)
    files(lambda x: {"alone": jnp.clip(x, -1, 1), "behind": jnp.clip(x @ kernel, -1, 1)}, (4,))


def test_a_loop_that_reads_and_writes_some_rows_keeps_its_values(files):
    def network(x):
        def write(turn, rows):
            row = lax.dynamic_slice_in_dim(x, turn + 1, 1, 1)
            return lax.dynamic_update_slice_in_dim(rows, 2 * row, turn, 1)

        return lax.fori_loop(0, 3, write, x)

    files(network, (5, 4))


def test_an_update_beyond_the_end_is_moved_inside_as_in_jax(files):
    files(lambda x: lax.dynamic_update_slice(x, 2 * x[:, :2], (0, x.shape[1] - 1)), (5,))


CELLS = {
    "GRU": linen.GRUCell,
    "LSTM": linen.LSTMCell,
    "LSTM, one product": linen.OptimizedLSTMCell,
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("last", [False, True])
def test_recurrent_layers_of_flax_are_one_operator_of_onnx(files, name, last):
    layer = linen.RNN(CELLS[name](features=6))
    params = drawn(layer.init(jax.random.key(0), jnp.zeros((1, 5, 4))))

    def network(x):
        y = layer.apply(params, x)
        return y[:, -1] if last else y

    _, onnx_file = files(network, (5, 4))
    assert onnx_file.operators[name.split(",")[0]] == 1
    assert onnx_file.operators["Scan"] == onnx_file.operators["Loop"] == 0


@pytest.mark.parametrize("reverse", [False, True])
def test_a_gru_with_a_learned_state_and_projected_inputs_is_one_operator_of_onnx(files, reverse):
    inward, kernel, bias, start = array(4, 18), array(6, 18) / 3, array(18), array(6)

    def network(x):
        def step(state, row):
            for_reset, for_update, for_new = jnp.split(row, 3, axis=-1)
            reset, update, new = jnp.split(state @ kernel + bias, 3, axis=-1)
            reset = jax.nn.sigmoid(for_reset + reset)
            update = jax.nn.sigmoid(for_update + update)
            new = jnp.tanh(for_new + reset * new)
            state = (1 - update) * new + update * state
            return state, state

        state = jnp.broadcast_to(start, (x.shape[0], 6))
        last, rows = lax.scan(step, state, (x @ inward).swapaxes(0, 1), reverse=reverse)
        return {"last": last, "rows": rows.swapaxes(0, 1)}

    _, onnx_file = files(network, (5, 4))
    assert onnx_file.operators["GRU"] == 1
    assert onnx_file.operators["MatMul"] == 0  # the operator includes the projection


def test_an_lstm_with_concatenated_inputs_and_a_forget_bias_is_one_operator_of_onnx(files):
    kernel, bias = array(10, 24) / 3, array(24)

    def network(x):
        def step(carry, row):
            state, memory = carry
            gates = jnp.concatenate([row, state], axis=-1) @ kernel + bias
            enter, new, forget, leave = jnp.split(gates, 4, axis=-1)
            memory = jax.nn.sigmoid(forget + 1) * memory + jax.nn.sigmoid(enter) * jnp.tanh(new)
            state = jax.nn.sigmoid(leave) * jnp.tanh(memory)
            return (state, memory), None

        start = jnp.zeros((x.shape[0], 6))
        return lax.scan(step, (start, start + 1), x.swapaxes(0, 1))[0]

    _, onnx_file = files(network, (5, 4))
    assert onnx_file.operators["LSTM"] == 1


def gru_with_an_output_of_its_own(state, update, new):
    return (1 - update) * new + update * state, update


def gru_that_keeps_what_it_should_forget(state, update, new):
    return (1 - update) * state + update * new, state


def gru_that_forgets_something_else(state, update, new):
    return (1 - update) * new + update * jnp.abs(state), state


@pytest.mark.parametrize(
    "end",
    [
        gru_with_an_output_of_its_own,
        gru_that_keeps_what_it_should_forget,
        gru_that_forgets_something_else,
    ],
)
def test_a_scan_that_is_nearly_a_gru_is_left_unchanged(files, end):
    kernel = array(4, 12) / 2

    def network(x):
        def step(state, row):
            reset, update, new = jnp.split(state @ kernel, 3, axis=-1)
            new = jnp.tanh(row + jax.nn.sigmoid(reset) * new)
            return end(state, jax.nn.sigmoid(update + row), new)

        start = jnp.zeros((x.shape[0], 4))
        last, rows = lax.scan(step, start, x.swapaxes(0, 1))
        return {"last": last, "rows": rows.swapaxes(0, 1)}

    _, onnx_file = files(network, (5, 4))
    assert onnx_file.operators["Scan"] == 1
    assert onnx_file.operators["GRU"] == 0


def drawn(params):
    """Random parameters of the same shapes, without the 0 and 1 of initial ones."""
    return jax.tree.map(lambda leaf: array(*leaf.shape) / 2, params)


def flax_layer_norm(**options):
    layer = linen.LayerNorm(**options)
    return partial(layer.apply, drawn(layer.init(jax.random.key(0), jnp.zeros((1, 4, 6)))))


def nnx_layer_norm():
    graph, state = nnx.split(nnx.LayerNorm(6, rngs=nnx.Rngs(0)))
    return nnx.merge(graph, drawn(state))


def haiku_layer_norm():
    """The layer norm of Haiku."""
    scale, offset = array(6), array(6)

    def network(x):
        mean = jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.var(x, axis=-1, keepdims=True)
        inverse = jnp.broadcast_to(scale, x.shape) * lax.rsqrt(variance + 1e-5)
        return inverse * (x - mean) + jnp.broadcast_to(offset, x.shape)

    return network


def equinox_layer_norm():
    """The layer norm of Equinox, for one row."""
    weight, bias = array(6), array(6)

    def one(x):
        mean = jnp.mean(x, keepdims=True)
        variance = jnp.maximum(0.0, jnp.var(x, keepdims=True))
        return weight * ((x - mean) * lax.rsqrt(variance + 1e-5)) + bias

    return jax.vmap(jax.vmap(one))


@pytest.mark.parametrize(
    "make",
    [
        flax_layer_norm,
        partial(flax_layer_norm, use_fast_variance=False),
        partial(flax_layer_norm, use_bias=False),
        partial(flax_layer_norm, use_scale=False),
        nnx_layer_norm,
        haiku_layer_norm,
        equinox_layer_norm,
    ],
    ids=["flax", "two passes", "no bias", "no scale", "nnx", "haiku", "equinox"],
)
def test_layer_norms_of_other_libraries_are_one_operator_of_onnx(files, make):
    tflite, onnx_file = files(make(), (4, 6))
    assert onnx_file.operators == Counter(LayerNormalization=1)
    assert tflite.operators["RESHAPE"] == tflite.operators["SUM"] == 0


def test_group_norm_of_flax_is_exported_for_any_batch(files):
    layer = linen.GroupNorm(num_groups=2)
    params = drawn(layer.init(jax.random.key(0), jnp.zeros((1, 4, 6))))
    files(partial(layer.apply, params), (4, 6))


def test_a_mean_that_is_also_used_without_its_axes_keeps_its_values(files):
    def network(x):
        mean = x.mean(-1)
        return {"centred": x - mean[..., None], "mean": jnp.exp(mean)}

    files(network, (4, 6))


def test_successive_reshapes_are_merged_and_one_to_the_same_shape_is_removed(files):
    tflite, _ = files(lambda x: jnp.exp(x.reshape(-1, 6, 4).reshape(-1, 8, 3)), (4, 6))
    assert tflite.operators == Counter(RESHAPE=1, EXP=1)
    tflite, _ = files(lambda x: jnp.exp(jnp.tanh(x).reshape(-1, 6, 4).reshape(-1, 4, 6)), (4, 6))
    assert tflite.operators == Counter(TANH=1, EXP=1)


def test_outputs_of_equal_value_and_an_input_as_output_keep_their_names(files):
    def network(x, y):
        product = 2 * x
        return {"a": product, "b": product, "c": product.reshape(-1, 2, 2), "d": y, "e": y + 0}

    tflite, onnx_file = files(network, (4,), (3, 2))
    assert set(tflite.outputs) == set(onnx_file.outputs) == set("abcde")


@pytest.mark.parametrize(("stride", "kind"), [(1, "MatMul"), (2, "Conv")])
def test_a_pixelwise_convolution_without_a_bias_is_a_product_if_it_has_no_stride(
    files, stride, kind
):
    params = {"kernel": array(1, 1, 6, 8)}
    _, onnx_file = files(lambda x: conv2d(x, 8, 1, stride, bias=False, params=params)[0], (5, 5, 6))
    assert onnx_file.operators[kind] == 1


def test_a_pixelwise_convolution_is_a_product(files):
    params = {"kernel": array(1, 1, 6, 8), "bias": array(8)}
    _, onnx_file = files(lambda x: conv2d(x, 8, 1, params=params)[0], (5, 5, 6))
    assert onnx_file.operators == Counter(MatMul=1, Add=1)


@pytest.mark.parametrize("approximate", [True, False])
def test_gelu_is_one_operator_of_both_formats(files, approximate):
    tflite, onnx_file = files(lambda x: jnp.tanh(jax.nn.gelu(x, approximate=approximate)), (9,))
    assert tflite.operators == Counter(GELU=1, TANH=1)
    assert onnx_file.operators == Counter(Gelu=1, Tanh=1)


@pytest.mark.parametrize("approximate", [True, False])
def test_gelu_as_the_last_operator_keeps_its_values(files, approximate):
    files(lambda x: jax.nn.gelu(x, approximate=approximate), (9,))


def test_erf_and_its_complement_keep_their_values(files):
    files(lambda x: {"erf": lax.erf(x), "erfc": lax.erfc(x)}, (9,), tolerance=1e-6)


def test_erf_agrees_with_scipy():
    from scipy.special import erf as reference

    x = np.linspace(-5, 5, 1001, dtype=np.float32)
    np.testing.assert_allclose(erf(x), reference(x), atol=5e-7)


def test_a_transposed_convolution_keeps_its_values(files):
    kernel = array(3, 3, 4, 2)
    files(
        lambda x: lax.conv_transpose(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        (5, 5, 4),
        tolerance=5e-6,
    )


def test_zeros_for_each_example_are_broadcast_over_any_batch(files):
    files(lambda x: jnp.concatenate([x, jnp.zeros((x.shape[0], 2))], 1), (3,))


def test_the_batch_may_be_folded_into_another_axis(files):
    files(lambda x: (x.reshape(-1, 3) @ jnp.eye(3)).reshape(-1, 12), (4, 3))


@pytest.mark.parametrize(
    ("network", "what"),
    [
        (lambda x: x - x.mean(0), "examples"),
        (lambda x: x + jnp.arange(x.shape[0])[:, None] ** 2.0, "examples"),
        (lambda x: x / x.shape[0], "examples"),
        (lambda x: x[::-1] if x.shape[0] == 2 else x, "examples"),
    ],
    ids=["mean", "squares", "size", "branch"],
)
def test_a_network_that_mixes_examples_is_refused(converter, network, what):
    network = describe(network, [Array("x", (3,), FLOAT)])
    with pytest.raises(UserError, match=rf"does not treat the {what} of a batch one by one"):
        converter.run(to_tflite, [lower(network, 2), lower(network, 3)], network.names)


@pytest.mark.parametrize(
    "network", [lambda x: x - x.mean(0), lambda x: x + jnp.arange(x.shape[0])[:, None] ** 2.0]
)
def test_a_network_that_mixes_examples_is_refused_with_its_line(converter, network):
    network = describe(network, [Array("x", (3,), FLOAT)])
    with pytest.raises(UserError, match=r"one by one: .*test_graphs\.py:\d+"):
        tflite_of(network, converter)


@pytest.mark.parametrize(
    "network",
    [
        lambda x: x - x.mean(0),
        lambda x: x / x.shape[0],
        lambda x: x[::-1] if x.shape[0] == 2 else x,
        lambda x: x @ (x.T @ x),
        lambda x: jnp.cumsum(x, 0),
    ],
)
def test_a_network_that_mixes_examples_is_refused_for_onnx_alone_as_well(network):
    network = describe(network, [Array("x", (3,), FLOAT)])
    with pytest.raises(UserError, match="does not treat the examples of a batch one by one"):
        to_onnx(network)


@pytest.mark.parametrize(
    ("function", "primitive"), [(jnp.linalg.cholesky, "cholesky"), (jnp.fft.fft, "fft")]
)
def test_operations_that_no_converter_takes_are_refused_with_layer_and_line(function, primitive):
    def network(x):
        with jax.named_scope("neck"):
            return jnp.abs(function(x))

    with pytest.raises(UserError, match=rf"layer neck.*\.py:\d+.*{primitive}"):
        lowered(network, (8, 8))


def test_products_of_halves_are_refused_by_line_and_say_what_to_write():
    network = jax.vmap(lambda x: x.astype(jnp.bfloat16) @ jnp.ones((4, 3), jnp.bfloat16))
    with pytest.raises(UserError, match=r"test_graphs\.py:\d+.*dot_general of bfloat16.*float32"):
        exportable(network, jnp.ones((2, 4)))


def test_operations_inside_loops_are_refused():
    def network(x):
        return lax.scan(lambda state, _: (lax.lgamma(state), None), x, length=2)[0]

    with pytest.raises(UserError, match="lgamma has no counterpart"):
        lowered(network, (8,))


def test_rewriting_keeps_the_values_of_loops_and_branches():
    def network(x):
        x = lax.fori_loop(0, 3, lambda _, value: lax.erf(value) + 1, x)
        return (lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x),)

    x = array(3, 5)
    np.testing.assert_allclose(exportable(network, x)(x)[0], network(x)[0], atol=1e-6)


def test_every_layer_of_the_template_is_exported(files):
    def on_rows(layer):
        return lambda x, **named: layer(x.reshape(x.shape[0], -1, 4), **named)

    def look_up(x, **named):
        return embedding(jnp.clip(x, 0, 3).astype(jnp.int32), 4, 3, **named)

    def drop_both(x, **named):
        x, _ = modules.dropout(x, 0.1, **named)
        return 2 * modules.drop_path(x, 0.1, **named)[0], {}

    layers = {
        "linear": partial(modules.linear, features=5),
        "conv2d": partial(conv2d, features=6, kernel_size=3, stride=2),
        "grouped": partial(conv2d, features=8, kernel_size=3, groups=2),
        "depthwise": partial(conv2d, features=4, kernel_size=3, groups=4, padding="VALID"),
        "attention": on_rows(partial(modules.attention, heads=2)),
        "embedding": look_up,
        "layer_norm": layer_norm,
        "rms_norm": modules.rms_norm,
        "group_norm": partial(modules.group_norm, groups=2),
        "batch_norm": modules.batch_norm,
        "dropped": drop_both,
        "max_pool": partial(modules.max_pool, window=3, stride=2, padding="SAME"),
        "average_pool": partial(modules.average_pool, window=3, stride=2, padding="SAME"),
        "global_average_pool": modules.global_average_pool,
    }
    image = array(1, 8, 8, 4)
    params = {name: layer(image, key=jax.random.key(0))[1] for name, layer in layers.items()}
    files(
        lambda x: {name: layer(x, params=params[name])[0] for name, layer in layers.items()},
        (8, 8, 4),
        tolerance=1e-5,
    )
