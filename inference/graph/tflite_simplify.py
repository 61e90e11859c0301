"""Small rewrites of a .tflite graph: fewer operators, the same values to the last few bits.

XLA's sums drop the axes that they run over. So the converter writes `x.mean(-1, keepdims=True)` as
SUM, MUL by 1/n and RESHAPE: three operators in place of one, in which a reader of the file does not
recognise a mean. Each rule below names a pattern and its replacement.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from inference.graph.tflite_graph import apply, graphs, made_by
from inference.graph.tflite_layout import sink_transpositions
from inference.graph.tflite_lookups import (
    drop_index_check,
    drop_order_check,
    gather_rows,
    gather_step,
)

ELEMENTWISE = {"ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW"}  # with a single number
UNARY = {"RSQRT", "SQRT", "EXP", "LOG", "NEG", "ABS"}
REDUCTIONS = {"SUM", "MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"}


def simplify(model):
    """Returns the model with every rule applied until none matches."""
    rules = (
        merge_reshapes,
        drop_reshape,
        drop_relu_of_squares,
        sum_to_mean,
        keep_reduced_axes,
        drop_order_check,
        drop_index_check,
        gather_rows,
        gather_step,
        split,
    )
    for graph in graphs(model):
        apply(graph, rules)
    return sink_transpositions(model)


def merge_reshapes(graph, operator):
    """RESHAPE(RESHAPE(x)) -> RESHAPE(x)."""
    before = graph.maker(operator.inputs[0]) if graph.kind(operator) == "RESHAPE" else None
    if before is None or graph.kind(before) != "RESHAPE":
        return False
    operator.inputs = [before.inputs[0], *operator.inputs[1:]]
    if not graph.users(before.outputs[0]) and before.outputs[0] not in graph.subgraph.outputs:
        graph.remove(before)
    return True


def drop_reshape(graph, operator):
    """RESHAPE(x) to the shape that x has -> x."""
    if graph.kind(operator) != "RESHAPE" or operator.outputs[0] in graph.subgraph.outputs:
        return False
    source, target = operator.inputs[0], operator.outputs[0]
    shape = graph.shape(source)
    if shape != graph.shape(target) or shape.count(-1) > 1:
        return False
    graph.replace(target, source)
    graph.remove(operator)
    return True


def sum_to_mean(graph, operator):
    """MUL(SUM(x), 1/n), where n elements are summed -> MEAN(x)."""
    if graph.kind(operator) != "MUL" or operator.builtinOptions.fusedActivationFunction:
        return False
    before = graph.maker(operator.inputs[0])
    factor = graph.constant(operator.inputs[1])
    if before is None or graph.kind(before) != "SUM" or factor is None or factor.size != 1:
        return False
    sizes = np.array(graph.shape(before.inputs[0]))[_axes(graph, before)]
    single = graph.has_one_user(before.outputs[0])
    if not single or -1 in sizes or factor.reshape(()) != np.float32(1 / np.prod(sizes)):
        return False
    before.opcodeIndex, before.outputs = graph.code("MEAN"), operator.outputs
    graph.remove(operator)
    return True


def drop_relu_of_squares(graph, operator):
    """RELU(MUL(SUM(MUL(x, x)), 1/n)) -> MUL(SUM(MUL(x, x)), 1/n), which is never negative."""
    functions = schema.ActivationFunctionType
    if graph.kind(operator) != "MUL":
        return False
    total, factor = made_by(graph, operator.inputs[0], "SUM"), graph.constant(operator.inputs[1])
    square = None if total is None else made_by(graph, total.inputs[0], "MUL")
    if square is None or factor is None or (factor < 0).any():
        return False
    fused = [one.builtinOptions.fusedActivationFunction for one in (square, operator)]
    if fused != [functions.NONE, functions.RELU] or square.inputs[0] != square.inputs[1]:
        return False
    operator.builtinOptions.fusedActivationFunction = functions.NONE
    return True


def keep_reduced_axes(graph, operator):
    """RESHAPE(f(MEAN(x), ...)), which only restores the axes -> f(MEAN(x, keep_dims), ...).

    f: any elementwise operators of reductions and of single numbers. All other users of their
    results are among these operators, or restore the axes as well.
    """
    if graph.kind(operator) != "RESHAPE":
        return False
    kept = graph.shape(operator.outputs[0])
    inside = _from_reductions(graph, operator.inputs[0], kept)
    users = [user for one in inside or () for user in graph.users(one.outputs[0])]
    reshapes = [one for one in users if graph.kind(one) == "RESHAPE"]
    others = [one for one in users if one not in reshapes and one not in inside]
    ends = any(one.outputs[0] in graph.subgraph.outputs for one in inside or ())
    if not inside or others or ends or any(graph.shape(one.outputs[0]) != kept for one in reshapes):
        return False
    for one in inside:
        graph.set_shape(one.outputs[0], kept)
        if graph.kind(one) in REDUCTIONS:
            one.builtinOptions.keepDims = True
    for reshape in reshapes:
        source, target = reshape.inputs[0], reshape.outputs[0]
        graph.maker(source).outputs = [
            target
        ]  # which may be an output of the network, with its name
        graph.remove(reshape)
        graph.replace(source, target)
    return True


def split(graph, operator):
    """SLICEs that divide a tensor along its last axis into equal pieces, in order -> SPLIT."""
    if graph.kind(operator) != "SLICE":
        return False
    source = operator.inputs[0]
    pieces = [one for one in graph.users(source) if graph.kind(one) == "SLICE"]
    begins = [graph.constant(one.inputs[1]) for one in pieces]
    if len(pieces) < 2 or any(begin is None for begin in begins):
        return False
    pieces.sort(key=lambda one: graph.constant(one.inputs[1]).tolist())
    shape, size = graph.shape(source), graph.shape(source)[-1] // len(pieces)
    for number, one in enumerate(pieces):
        begin = [0] * (len(shape) - 1) + [number * size]
        if graph.constant(one.inputs[1]).tolist() != begin:
            return False
        if graph.shape(one.outputs[0]) != (*shape[:-1], size) or size * len(pieces) != shape[-1]:
            return False
    options = schema.SplitOptionsT()
    options.numSplits = len(pieces)
    axis = graph.add_constant("axis", np.int32(len(shape) - 1))
    new = graph.make("SPLIT", [axis, source], [one.outputs[0] for one in pieces], options)
    at = min(graph.operators.index(one) for one in pieces)
    graph.operators.insert(at, new)
    for one in pieces:
        graph.remove(one)
    return True


def _axes(graph, reduction):
    return np.atleast_1d(graph.constant(reduction.inputs[1]))


def _from_reductions(graph, index, kept):
    """The elementwise operators that make a tensor from reductions to this shape, and these.

    None if the tensor depends on anything else.
    """
    operator = graph.maker(index)
    kind = None if operator is None else graph.kind(operator)
    if kind in REDUCTIONS:
        shape = list(graph.shape(operator.inputs[0]))
        for axis in _axes(graph, operator):
            shape[axis] = 1
        dropped = not operator.builtinOptions.keepDims and tuple(shape) == kept
        return [operator] if dropped else None
    found = [] if kind in UNARY | ELEMENTWISE else None
    for one in operator.inputs if found is not None else ():
        constant = graph.constant(one)
        before = [] if constant is not None and constant.ndim == 0 else (
            _from_reductions(graph, one, kept)
        )  # fmt: skip
        if before is None:
            return None
        found += [new for new in before if new not in found]
    return None if found is None else [*found, operator]
