"""An index below 0 fails in an .onnx file as one above the last row does, and in LiteRT."""

import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from inference.export.network import Array, describe
from inference.graph.onnx_direct import to_onnx
from model.modules import embedding

TABLE = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def rows(x):
    """The rows of the table, of integers that the network does not change."""
    return jnp.asarray(TABLE).at[x].get(mode="promise_in_bounds", wrap_negative_indices=False)


def session_of(function, *inputs):
    """The session of a network's file, and the number of its operators Where."""
    content = to_onnx(describe(function, [Array(*one) for one in inputs]))
    kinds = [node.op_type for node in onnx.load_from_string(content).graph.node]
    return onnxruntime.InferenceSession(content), kinds.count("Where")


def embedded(x):
    """The rows of the template's own layer."""
    return embedding(x, 5, 3, params={"table": TABLE})[0]


@pytest.mark.parametrize(
    ("dtype", "function"), [("int32", rows), ("uint8", rows), ("int32", embedded)]
)
def test_rows_are_found_and_what_has_none_raises_an_error(dtype, function):
    session, _ = session_of(function, ("input", (2,), np.dtype(dtype)))
    (found,) = session.run(None, {"input": np.array([[0, 4], [2, 1]], dtype)})
    np.testing.assert_array_equal(found, TABLE[[[0, 4], [2, 1]]])
    for bad in (5, 255) if dtype == "uint8" else (5, -1, -5, -6, -(2**31), 2**31 - 1):
        with pytest.raises(Exception, match="ndex"):
            session.run(None, {"input": np.array([[bad, 0]], dtype)})


def test_indices_from_the_end_count_from_there_as_far_as_there_are_rows():
    session, _ = session_of(lambda x: jnp.asarray(TABLE)[x], ("input", (2,), np.dtype("int32")))
    (found,) = session.run(None, {"input": np.array([[-1, -5]], np.int32)})
    np.testing.assert_array_equal(found, TABLE[[[-1, -5]]])
    with pytest.raises(Exception, match="ndex"):
        session.run(None, {"input": np.array([[-6, 0]], np.int32)})


def test_an_index_that_the_network_itself_limits_costs_nothing():
    _, plain = session_of(
        lambda x: jnp.asarray(TABLE)[jnp.argmax(x, -1)], ("input", (5,), np.dtype("float32"))
    )
    _, clipped = session_of(lambda x: rows(jnp.clip(x, 0, 4)), ("input", (2,), np.dtype("int32")))
    assert (plain <= 1, clipped) == (True, 0)
