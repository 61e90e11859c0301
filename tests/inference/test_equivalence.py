"""The equivalence check finds what differs, on inputs beyond those of the test set too."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from inference.export.inputs import parse_ranges
from inference.export.network import Array, at_the_door, describe
from inference.graph.index_ranges import index_ranges
from inference.verify.equivalence import LIMITS, check
from inference.verify.reference import make_reference
from inference.verify.report import write_report
from training.common.differences import differences
from utils import UserError

INF, NAN = np.inf, np.nan


def reference_of(function, *inputs, batches=(), **options):
    network = describe(function, list(inputs))
    return make_reference(
        jax.jit(network.function), lambda *raw: raw, network, list(batches), None, **options
    )


def onnx_file(path, nodes, inputs, outputs, **constants):
    """Writes an ONNX file; inputs and outputs are (name, type, shape without the batch)."""
    ends = [
        [helper.make_tensor_value_info(name, kind, ["batch", *shape]) for name, kind, shape in one]
        for one in (inputs, outputs)
    ]
    constants = [(np.asarray(one), name) for name, one in constants.items()]
    arrays = [onnx.numpy_helper.from_array(*one) for one in constants]
    graph = helper.make_graph(nodes, "net", *ends, arrays)
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


# What differs


@pytest.mark.parametrize(
    ("computed", "wanted", "equal"),
    [
        ([1, INF], [1, INF], True),
        ([1, NAN], [1, NAN], True),
        ([1, -INF], [1, INF], False),
        ([1, NAN], [1, INF], False),
        ([1, INF], [1, NAN], False),
        ([1, 2], [1, NAN], False),
        ([NAN, 2], [1, 2], False),
        ([9, -9, -3.4e38], [1, 2, -INF], False),
        ([9, -9, -INF], [1, 2, -INF], False),
        ([1, 2, -INF], [1, 2, -INF], True),
    ],
)
def test_numbers_that_are_not_finite_are_compared_as_such_and_the_others_by_value(
    computed, wanted, equal
):
    found = differences(np.float32(computed), np.float32(wanted))
    assert (found["error"] < 1e-6) is equal
    if not np.isfinite(found["error"]):
        assert "in place of" in found["fault"]


def test_integers_and_booleans_are_compared_element_by_element():
    large = np.int32([2**31 - 1, 5, 0, 1])
    assert differences(large, large)["error"] == 0
    assert differences(large - np.int32([1, 0, 0, 0]), large)["error"] == 0.25
    assert differences(np.array([True, True]), np.array([True, False]))["error"] == 0.5


def test_another_shape_or_dtype_is_infinitely_far():
    zeros = np.zeros((2, 3), np.float32)
    assert "(3, 2) in place of float32 (2, 3)" in differences(zeros.T, zeros)["fault"]
    assert differences(zeros.astype(np.float16), zeros)["error"] == INF


# Inputs beyond those of the test set


def remainder(path, fmod):
    """Writes (x - 20) % 3 as an ONNX file, by the sign of the divisor or of the dividend."""
    nodes = [
        helper.make_node("Sub", ["x", "twenty"], ["less"]),
        helper.make_node("Mod", ["less", "three"], ["rest"], fmod=fmod),
    ]
    ends = [("x", TensorProto.INT32, ())], [("rest", TensorProto.INT32, ())]
    return onnx_file(path, nodes, *ends, twenty=np.int32(20), three=np.int32(3))


def test_a_remainder_that_is_right_within_the_test_set_alone_is_found(tmp_path):
    lengths = [(np.arange(20, 41, dtype=np.int32),)]
    length = Array("x", (), np.dtype(np.int32))
    reference = reference_of(lambda x: {"rest": (x - 20) % 3}, length, batches=lengths)
    (right, wrong) = (remainder(tmp_path / f"{fmod}.onnx", fmod) for fmod in (0, 1))
    assert check(right, "float32", reference, LIMITS)["broken"] == []
    (broken,) = check(wrong, "float32", reference, LIMITS)["broken"]
    assert broken.startswith("error")
    assert "output rest" in broken
    limited = reference_of(
        lambda x: {"rest": (x - 20) % 3}, length, batches=lengths, ranges={"x": (20, 40)}
    )
    assert check(wrong, "float32", limited, LIMITS)["broken"] == []
    assert limited.summary["ranges"] == {"x": [20, 40]}


def test_a_real_function_that_is_right_within_the_data_alone_is_found(tmp_path):
    data = [(np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype(np.float32),)]
    reference = reference_of(
        lambda x: {"y": 2 * x}, Array("x", (3,), np.dtype(np.float32)), batches=data
    )
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["clipped"]),
        helper.make_node("Mul", ["clipped", "two"], ["y"]),
    ]
    ends = [("x", TensorProto.FLOAT, (3,))], [("y", TensorProto.FLOAT, (3,))]
    numbers = {"low": np.float32(-4), "high": np.float32(4), "two": np.float32(2)}
    path = onnx_file(tmp_path / "net.onnx", nodes, *ends, **numbers)
    (broken,) = check(path, "float32", reference, LIMITS)["broken"]
    assert "far beyond the data" in broken


def test_tokens_are_tried_from_the_first_row_to_the_last():
    table = jnp.ones((50, 4))
    tokens, length = (jax.ShapeDtypeStruct((2, *shape), jnp.int32) for shape in ((7,), ()))

    def network(tokens, length):
        rows = jnp.take(table, tokens, axis=0)
        last = rows[jnp.arange(len(rows)), length - 1]
        return last * (jnp.arange(4) < length[:, None])

    assert index_ranges(network, tokens, length) == [(0, 49), (1, 7)]
    (free,) = index_ranges(lambda x: table[jnp.clip(x, 0, 49)], tokens)
    assert free[0] < -(2**31)
    assert free[1] > 2**31
    assert index_ranges(lambda x: x * 2, tokens) == [None]
    inside = jax.jit(lambda x: jax.checkpoint(lambda x: table[x])(x))
    assert index_ranges(inside, tokens) == [(0, 49)]

    def generate(token):
        def step(state):
            return state[0] + 1, table[state[1]].argmax(-1)

        return jax.lax.while_loop(lambda state: state[0] < 3, step, (0, token))[1]

    assert index_ranges(generate, length) == [(0, 49)]


def test_data_outside_of_a_range_or_a_table_are_refused_by_name():
    data = [(np.array([1, 57], np.int32),)]
    token = Array("token", (), np.dtype(np.int32))
    with pytest.raises(UserError, match="token is from 1 to 57 in the data, beyond the 0 to 49"):
        reference_of(lambda x: jnp.ones((50, 4))[x], token, batches=data)
    with pytest.raises(UserError, match="beyond the 0 to 40 that are asked for"):
        reference_of(lambda x: x * 2, token, batches=data, ranges={"token": (0, 40)})
    with pytest.raises(UserError, match="no input is called 'tokn'"):
        reference_of(lambda x: x * 2, token, batches=data, ranges={"tokn": (0, 99)})


def test_batches_of_all_sizes_are_run_in_one_session_and_the_first_once_more():
    data = [(np.zeros((16, 3), np.float32),)] * 2
    reference = reference_of(lambda x: 2 * x, Array("x", (3,), np.dtype(np.float32)), batches=data)
    sizes = [len(trial.inputs[0]) for trial in reference.trials]
    assert sizes[:5] == [1, 2, 3, 64, 17]
    assert sizes[-1] == 1
    assert reference.summary["batches"] == [1, 2, 3, 17, 64]
    assert reference.summary["test_examples"] == 32
    assert reference.summary["runtimes"]["onnx"].startswith("onnxruntime ")


def test_an_export_whose_outputs_are_in_another_order_is_refused(tmp_path):
    number = Array("x", (), np.dtype(np.float32))
    reference = reference_of(lambda x: {"a": 2 * x, "b": 3 * x}, number)
    nodes = [helper.make_node("Mul", ["x", "n"], ["a"]), helper.make_node("Mul", ["x", "m"], ["b"])]
    outputs = [(name, TensorProto.FLOAT, ()) for name in "ba"]
    numbers = {"n": np.float32(2), "m": np.float32(3)}
    path = onnx_file(tmp_path / "n.onnx", nodes, [("x", TensorProto.FLOAT, ())], outputs, **numbers)
    (broken,) = check(path, "float32", reference, LIMITS)["broken"]
    assert broken.startswith("its outputs are b float32 (); a float32 ()")


def test_a_sine_of_large_numbers_is_no_fault_of_the_file(tmp_path):
    x = Array("x", (8,), np.dtype(np.float32))
    data = [(np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32),)]
    weights = np.random.default_rng(1).normal(size=(8, 5)).astype(np.float32) * 300
    reference = reference_of(lambda x: {"y": jnp.sin(x @ weights)}, x, batches=data)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Sin", ["z"], ["y"])]
    ends = [("x", TensorProto.FLOAT, (8,))], [("y", TensorProto.FLOAT, (5,))]
    path = onnx_file(tmp_path / "net.onnx", nodes, *ends, w=weights)
    lenient = {"float32": {"error": 2e-3, "agreement": 1}}
    result = check(path, "float32", reference, lenient)
    assert result["broken"] == []


# Names, dtypes, options


def test_outputs_have_names_of_their_own():
    x = Array("x", (3,), np.dtype(np.float32))

    def network(x):
        return {"x": x, "a:0": x + 1, "h": {"a": x + 2}, "h_a": x + 3, "é b": x, "1": x}

    names = [one.name for one in describe(network, [x]).outputs]
    assert names == ["output_1", "a:0", "h_a", "h_a_2", "output_x", "é b"]


def test_data_are_converted_at_the_door_or_refused():
    converted = {"int64": "int32", "uint64": "uint32", "float64": "float32", "float16": "float32"}
    for stored in ("int64", "uint64", "float64", "float16", "uint8", "bool", "int16", "float32"):
        assert at_the_door(np.ones(3, stored)).dtype == converted.get(stored, stored)
    assert at_the_door(jnp.ones(3, jnp.bfloat16)).dtype == np.float32
    with pytest.raises(UserError, match="int64 from 1 to 5000000000"):
        at_the_door(np.array([1, 5_000_000_000]))


def test_ranges_are_names_with_two_ends():
    assert parse_ranges(["length=0..40", "x=-1.5..1e2"]) == {"length": (0, 40), "x": (-1.5, 100)}
    for wrong in ("length", "length=4..1", "length=0-40", "=0..4", "x=nan..1"):
        with pytest.raises(UserError, match=r"expected NAME=LOWEST\.\.HIGHEST"):
            parse_ranges([wrong])


def test_a_report_is_json_whatever_the_numbers_are(tmp_path):
    def refuse(word):
        raise AssertionError(word)

    result = {"file": "net.onnx", "broken": ["error inf"], "errors": [INF, -INF, NAN, 1.5]}
    report = {"name": "net", "metadata": {"parameters": 1}, "limits": LIMITS, "seconds": {},
              "files": [result]}  # fmt: skip
    write_report(tmp_path, report)
    written = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert written["files"][0]["errors"] == ["inf", "-inf", "nan", 1.5]
