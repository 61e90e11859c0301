"""Rewrites of lookups in a .tflite graph: one GATHER, as a person would have written it."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from inference.graph.tflite_graph import made_by


def drop_order_check(graph, operator):
    """SELECT_V2(order >= 0, values, 0) -> values of one TOPK_V2, as jax_substitutes.py has it."""
    if graph.kind(operator) != "SELECT_V2":
        return False
    check, values = graph.maker(operator.inputs[0]), graph.maker(operator.inputs[1])
    if values is None or graph.kind(values) != "TOPK_V2":
        return False
    if not _compares(graph, check, "GREATER_EQUAL", values.outputs[1], 0):
        return False
    if values.outputs[0] in graph.subgraph.outputs:
        return False
    graph.remove(operator)
    old, target = values.outputs[0], operator.outputs[0]  # perhaps an output, with its name
    values.outputs = [target, values.outputs[1]]
    graph.replace(old, target)
    graph.remove_unused(check)
    return True


def drop_index_check(graph, operator):
    """SELECT_V2(0 <= x <= rows - 1, GATHER_ND(table, x), NaN) -> GATHER_ND(table, x).

    jnp.take looks rows up in this way. The runtimes check indices themselves: one out of range is
    an error there, and NaN in JAX.
    """
    if graph.kind(operator) != "SELECT_V2" or not _is_nan(graph, operator.inputs[2]):
        return False
    gather = graph.maker(operator.inputs[1])
    every = _behind_reshape(graph, operator.inputs[0])
    both = made_by(graph, every.inputs[0], "LOGICAL_AND") if every is not None else None
    if both is None or graph.kind(every) != "REDUCE_ALL" or not _is_gather(graph, gather):
        return False
    if not graph.has_one_user(gather.outputs[0]):
        return False
    low, high = (graph.maker(index) for index in both.inputs)
    table, index = gather.inputs
    last = np.array(graph.shape(table)[: graph.shape(index)[-1]]) - 1
    if not _compares(graph, low, "GREATER_EQUAL", index, 0) or not _compares(
        graph, high, "LESS_EQUAL", index, last
    ):
        return False
    check = graph.maker(operator.inputs[0])
    graph.remove(operator)
    gather.outputs = operator.outputs  # which may be an output of the network, with its name
    graph.remove_unused(check)
    return True


def gather_rows(graph, operator):
    """SELECT_V2(x >= 0, GATHER_ND(table, where(x < 0, x + rows, x)), NaN) -> GATHER(table, x).

    `model.modules.embedding` looks rows up in this way, after `drop_index_check`. A negative index,
    NaN in JAX, counts from the end in onnxruntime. Without the comparison, negative indices count
    from the end in JAX as well, and the lookup is left unchanged.
    """
    if graph.kind(operator) != "SELECT_V2" or not _is_nan(graph, operator.inputs[2]):
        return False
    gather = graph.maker(operator.inputs[1])
    check = _behind_reshape(graph, operator.inputs[0])
    wrapped = _behind_reshape(graph, gather.inputs[1]) if _is_gather(graph, gather) else None
    if check is None or wrapped is None or graph.kind(wrapped) not in ("SELECT", "SELECT_V2"):
        return False
    negative, added, index = (int(one) for one in wrapped.inputs)
    table = gather.inputs[0]
    added = made_by(graph, added, "ADD")
    fits = (
        _compares(graph, check, "GREATER_EQUAL", index, 0)
        and _compares(graph, graph.maker(negative), "LESS", index, 0)
        and added is not None
        and added.inputs[0] == index
        and _is_number(graph, added.inputs[1], graph.shape(table)[0])
        and graph.shape(gather.inputs[1]) == (*graph.shape(index), 1)
    )
    if not fits:
        return False
    options = schema.GatherOptionsT()
    options.axis = 0
    new = graph.make("GATHER", [table, index], operator.outputs, options)
    graph.operators[graph.operators.index(operator)] = new
    graph.remove_unused(gather, graph.maker(operator.inputs[0]))
    return True


def gather_step(graph, operator):
    """SLICE(x, (i, 0, ...), (1, all, ...)) whose first axis is dropped -> GATHER(x, i).

    A scan reads the row of its step in this way. A RESHAPE drops the axis, or a FULLY_CONNECTED,
    which merges all axes but the last.
    """
    packed = made_by(graph, operator.inputs[1], "PACK") if _is(graph, operator, "SLICE") else None
    if packed is None:
        return False
    source, (step, *begins), part = operator.inputs[0], packed.inputs, operator.outputs[0]
    whole = (1, *graph.shape(source)[1:]) == graph.shape(part)
    from_start = all(_is_number(graph, begin, 0) for begin in begins)
    used = part not in graph.subgraph.outputs
    for one in graph.users(part):
        reshaped = _is(graph, one, "RESHAPE") and graph.shape(one.outputs[0])
        used &= _is(graph, one, "FULLY_CONNECTED") or reshaped == graph.shape(part)[1:]
    if not (whole and from_start and used):
        return False
    graph.set_shape(part, graph.shape(part)[1:])  # the RESHAPE then changes nothing: `drop_reshape`
    options = schema.GatherOptionsT()
    options.axis = 0
    new = graph.make("GATHER", [source, step], [part], options)
    graph.operators[graph.operators.index(operator)] = new
    graph.remove_unused(packed)
    return True


def _is(graph, operator, kind):
    return graph.kind(operator) == kind


def _behind_reshape(graph, index):
    """The operator that makes a tensor, directly or through a RESHAPE."""
    maker = graph.maker(index)
    reshaped = maker is not None and graph.kind(maker) == "RESHAPE"
    return graph.maker(maker.inputs[0]) if reshaped else maker


def _is_gather(graph, operator):
    return operator is not None and graph.kind(operator) == "GATHER_ND"


def _is_nan(graph, index):
    value = graph.constant(index)
    return value is not None and value.dtype.kind == "f" and bool(np.isnan(value).all())


def _is_number(graph, index, number):
    value = graph.constant(index)
    return value is not None and bool((value == number).all())


def _compares(graph, operator, kind, index, number):
    """Whether an operator compares this tensor with this number."""
    fits = operator is not None and graph.kind(operator) == kind and operator.inputs[0] == index
    return fits and _is_number(graph, operator.inputs[1], number)
