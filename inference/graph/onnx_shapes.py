"""Operators of ONNX for the primitives of JAX that move elements, and look them up."""

import numpy as np

from inference.graph.any_batch import BatchDependent
from inference.graph.onnx_lowering import Size

SCATTERS = {"scatter": "none", "scatter-add": "add", "scatter-mul": "mul", "scatter-max": "max",
            "scatter-min": "min"}  # fmt: skip


def _broadcast_in_dim(graph, equation, other, sizes, x):
    axes, shape = equation.params["broadcast_dimensions"], [1] * len(sizes)
    own = graph.own_sizes(equation.invars[0])
    for axis, size in zip(axes, own, strict=True):
        shape[axis] = size
    x = x if shape == own else graph.reshape(x, shape)
    if shape == sizes:
        return x
    y = graph.op("Expand", x, graph.shape(sizes))
    graph.narrow[id(y)] = x
    return y


def _reshape(graph, equation, other, sizes, x):
    return graph.reshape(x, sizes)


def _transpose(graph, equation, other, sizes, x):
    return graph.transpose(x, list(equation.params["permutation"]))


def _rev(graph, equation, other, sizes, x):
    axes = equation.params["dimensions"]
    ends = [-(2**63) + 1] * len(axes)
    return graph.op("Slice", x, *(graph.integers(*one) for one in (
        [-1] * len(axes), ends, axes, [-1] * len(axes))))  # fmt: skip


def _slice(graph, equation, other, sizes, x):
    params, others = equation.params, other.params
    if params["start_indices"] != others["start_indices"]:
        raise BatchDependent("a slice starts elsewhere for another batch size")
    ends = [
        a if a == b else 2**62
        for a, b in zip(params["limit_indices"], others["limit_indices"], strict=True)
    ]
    rank = range(len(ends))
    steps = params["strides"] or [1] * len(ends)
    return graph.op("Slice", x, *(graph.integers(*one) for one in (
        params["start_indices"], ends, rank, steps)))  # fmt: skip


def _pad(graph, equation, other, sizes, x, value):
    config = equation.params["padding_config"]
    if config != other.params["padding_config"]:
        raise BatchDependent("padding depends on the batch size")
    around = [max(low, 0) for low, _, _ in config] + [max(high, 0) for _, high, _ in config]
    y = graph.op("Pad", x, graph.integers(*around), value) if any(around) else x
    if not any(low < 0 or high < 0 for low, high, _ in config):
        return y
    starts = [max(-low, 0) for low, _, _ in config]
    ends = [high if high < 0 else 2**62 for _, high, _ in config]
    return graph.op("Slice", y, *(graph.integers(*one) for one in (
        starts, ends, range(len(config)))))  # fmt: skip


def _concatenate(graph, equation, other, sizes, *parts):
    return graph.op("Concat", *parts, axis=equation.params["dimension"])


def _stack(graph, equation, other, sizes, *parts):
    axis = equation.params["axis"] % len(sizes)
    parts = [graph.op("Unsqueeze", one, graph.integers(axis)) for one in parts]
    return graph.op("Concat", *parts, axis=axis)


def _split(graph, equation, other, sizes, x):
    parts = equation.params["sizes"]
    return list(graph.tape.op_multi_out(
        "Split", [x, graph.integers(*parts)], {"axis": int(equation.params["axis"])},
        num_outputs=len(parts)))  # fmt: skip


def _iota(graph, equation, other, sizes):
    axis, dtype = equation.params["dimension"], equation.params["dtype"]
    size = sizes[axis]
    if isinstance(size, Size):
        count = graph.op("Squeeze", graph.size(size))
        ends = (graph.constant(np.int64(one)) for one in (0, 1))
        zero, one = ends
        x = graph.cast(graph.op("Range", zero, count, one), dtype)
    else:
        x = graph.constant(np.arange(size).astype(dtype))
    x = graph.reshape(x, [size if at == axis else 1 for at in range(len(sizes))])
    y = graph.op("Expand", x, graph.shape(sizes))
    graph.narrow[id(y)] = x
    return y


def _gather(graph, equation, other, sizes, operand, indices):
    numbers = equation.params["dimension_numbers"]
    aval = equation.invars[0].aval
    axes = list(numbers.start_index_map)
    rest = [axis for axis in range(aval.ndim) if axis not in axes]
    operand = graph.transpose(operand, [*axes, *rest])
    found = graph.op("GatherND", operand, graph.cast(indices, np.int64))
    outer = equation.invars[1].aval.ndim - 1
    kept = [axis for axis in range(aval.ndim) if axis not in numbers.collapsed_slice_dims]
    places = {axis: outer + at for at, axis in enumerate(rest)}
    ones = [axis for axis in kept if axis not in places]
    if ones:
        rank = outer + len(rest)
        found = graph.op("Unsqueeze", found, graph.integers(*range(rank, rank + len(ones))))
        places |= {axis: rank + at for at, axis in enumerate(ones)}
    offsets = dict(zip(numbers.offset_dims, (places[axis] for axis in kept), strict=True))
    outers = iter(range(outer))
    order = [offsets[at] if at in offsets else next(outers) for at in range(len(sizes))]
    return graph.transpose(found, order)


def _scatter(graph, equation, other, sizes, operand, indices, updates):
    """A scatter in the form of `jax_substitutes.scatter`: whole elements along some axes."""
    numbers = equation.params["dimension_numbers"]
    axes, rank = list(numbers.scatter_dims_to_operand_dims), equation.invars[0].aval.ndim
    order = [*axes, *(axis for axis in range(rank) if axis not in axes)]
    operand = graph.transpose(operand, order)
    y = graph.op("ScatterND", operand, graph.cast(indices, np.int64), updates,
                reduction=SCATTERS[equation.primitive.name])  # fmt: skip
    return graph.transpose(y, np.argsort(order))


def _dynamic_slice(graph, equation, other, sizes, x, *starts):
    whole = graph.shape(graph.own_sizes(equation.invars[0]))
    size = graph.shape(sizes)
    first = graph.op("Concat", *(graph.reshape(graph.cast(one, np.int64), [1]) for one in starts),
                    axis=0)  # fmt: skip
    first = graph.op("Min", graph.op("Max", first, graph.integers(0)), graph.op("Sub", whole, size))
    return graph.op("Slice", x, first, graph.op("Add", first, size))


def _dynamic_update_slice(graph, equation, other, sizes, x, part, *starts):
    first = graph.op("Concat", *(graph.reshape(graph.cast(one, np.int32), [1]) for one in starts),
                    axis=0)  # fmt: skip
    return graph.op("TFL_DYNAMIC_UPDATE_SLICE", x, part, first)  # onnx_graph.UpdateSlice


def _tile(graph, equation, other, sizes, x):
    counts = equation.params["reps"]
    if counts != other.params["reps"]:
        raise BatchDependent("a repetition depends on the batch size")
    return graph.op("Tile", x, graph.integers(*counts))


OPERATORS = dict.fromkeys(SCATTERS, _scatter) | {
    "broadcast_in_dim": _broadcast_in_dim, "reshape": _reshape, "transpose": _transpose,
    "rev": _rev, "slice": _slice, "pad": _pad, "concatenate": _concatenate, "stack": _stack,
    "split": _split, "iota": _iota, "gather": _gather, "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice, "tile": _tile, "squeeze": _reshape,
    "expand_dims": _reshape,
}  # fmt: skip
