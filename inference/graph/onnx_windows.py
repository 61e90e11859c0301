"""Operators of ONNX for the primitives of JAX that combine elements: sums, products, windows."""

import math

import numpy as np

from inference.graph.onnx_lowering import Size

REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
              "reduce_prod": "ReduceProd", "reduce_or": "ReduceMax",
              "reduce_and": "ReduceMin"}  # fmt: skip


def _reduction(graph, equation, other, sizes, x):
    """A sum, product or extreme over axes."""
    dtype, wide = equation.invars[0].aval.dtype, None
    graph.refuse_batch(equation, equation.params["axes"])
    if dtype.kind == "b":
        wide = np.int32
    elif dtype == np.int32 and equation.primitive.name == "reduce_sum":
        wide = np.int64  # onnxruntime's sum of int32 stops at the largest one
    x = graph.cast(x, wide) if wide else x
    axes = graph.integers(*equation.params["axes"])
    y = graph.op(REDUCTIONS[equation.primitive.name], x, axes, keepdims=0)
    return graph.cast(y, dtype) if wide else y


def _argmax(graph, equation, other, sizes, x):
    graph.refuse_batch(equation, equation.params["axes"])
    kind = {"argmax": "ArgMax", "argmin": "ArgMin"}[equation.primitive.name]
    y = graph.op(kind, x, axis=equation.params["axes"][0], keepdims=0)
    return graph.cast(y, equation.params["index_dtype"])


def _top_k(graph, equation, other, sizes, x):
    count, axis = graph.integers(equation.params["k"]), int(equation.params["axis"])
    graph.refuse_batch(equation, [axis])
    values, order = graph.tape.op_multi_out("TopK", [x, count], {"axis": axis}, num_outputs=2)
    return [values, graph.cast(order, np.int32)]


def _cumsum(graph, equation, other, sizes, x):
    graph.refuse_batch(equation, [equation.params["axis"]])
    axis = graph.constant(np.int64(equation.params["axis"]))
    return graph.op("CumSum", x, axis, reverse=int(equation.params["reverse"]))


def _dot_general(graph, equation, other, sizes, x, y):
    (left, right), (left_batch, right_batch) = equation.params["dimension_numbers"]
    graph.refuse_batch(equation, left)
    ranks = [one.aval.ndim for one in equation.invars]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    names = [[None] * rank for rank in ranks]
    pairs = (*left_batch, *left), (*right_batch, *right)
    for one, two in zip(*pairs, strict=True):
        names[0][one] = names[1][two] = next(letters)
    for rank, one in zip(ranks, names, strict=True):
        one[:] = [one[at] or next(letters) for at in range(rank)]
    batch = [names[0][axis] for axis in left_batch]
    free = [
        [name for at, name in enumerate(one) if at not in (*contracted, *batched)]
        for one, contracted, batched in zip(
            names, (left, right), (left_batch, right_batch), strict=True
        )
    ]
    inside = [names[0][axis] for axis in left]
    words = ["".join(one) for one in (*names, batch + free[0] + free[1])]
    plain = (
        names[0] == batch + free[0] + inside
        and names[1] == batch + inside + free[1]
        and len(inside) == len(free[1]) == 1
        and (len(free[0]) == 1 or not batch)
    )
    result = graph.op("MatMul", x, y) if plain else (
        graph.op("Einsum", x, y, equation=f"{words[0]},{words[1]}->{words[2]}")
    )  # fmt: skip
    dtype = equation.outvars[0].aval.dtype
    return result if dtype == equation.invars[0].aval.dtype else graph.cast(result, dtype)


def _conv_general_dilated(graph, equation, other, sizes, x, kernel):
    params, numbers = equation.params, equation.params["dimension_numbers"]
    if params["batch_group_count"] != 1 or np.min(params["padding"], initial=0) < 0:
        raise NotImplementedError("groups of the batch, or negative padding")
    y = graph.op(
        "Conv",
        graph.transpose(x, list(numbers.lhs_spec)),
        graph.transpose(kernel, list(numbers.rhs_spec)),
        strides=list(params["window_strides"]),
        dilations=list(params["rhs_dilation"]),
        pads=[low for low, _ in params["padding"]] + [high for _, high in params["padding"]],
        group=params["feature_group_count"],
    )
    return graph.transpose(y, np.argsort(numbers.out_spec))


def _reduce_window_max(graph, equation, other, sizes, x):
    params, kind = equation.params, equation.primitive.name
    window, strides, padding = (
        params[key] for key in ("window_dimensions", "window_strides", "padding")
    )
    dilations = params["window_dilation"]
    moved = [at for at, one in enumerate(zip(window, strides, padding, strict=True))
             if one != (1, 1, (0, 0))]  # fmt: skip
    if not moved:
        return x
    if set(params["base_dilation"]) != {1} or len(moved) > 3:
        raise NotImplementedError("a window of more than three axes")
    order = [at for at in range(len(sizes)) if at not in moved] + moved
    own = graph.own_sizes(equation.invars[0])
    x = graph.transpose(x, order)
    x = graph.reshape(x, [Size(1, 0), 1, *(own[at] for at in moved)])
    attributes = {
        "kernel_shape": [window[at] for at in moved],
        "strides": [strides[at] for at in moved],
        "dilations": [dilations[at] for at in moved],
        "pads": [padding[at][end] for end in (0, 1) for at in moved],
    }
    if kind == "reduce_window_sum":
        y = graph.op("AveragePool", x, count_include_pad=1, **attributes)
        y = graph.op("Mul", y, graph.constant(np.float32(math.prod(window))))
    elif kind == "reduce_window_min":
        y = graph.op("Neg", graph.op("MaxPool", graph.op("Neg", x), **attributes))
    else:
        y = graph.op("MaxPool", x, **attributes)
    y = graph.reshape(y, [sizes[at] for at in order])
    return graph.transpose(y, np.argsort(order))


OPERATORS = dict.fromkeys(REDUCTIONS, _reduction) | {
    "argmax": _argmax, "top_k": _top_k, "cumsum": _cumsum, "dot_general": _dot_general,
    "conv_general_dilated": _conv_general_dilated, "reduce_window_max": _reduce_window_max,
    "argmin": _argmax, "reduce_window_sum": _reduce_window_max,
    "reduce_window_min": _reduce_window_max,
}  # fmt: skip
