"""Rewrites of transpositions of a .tflite graph: moved towards its end, where they meet and cancel.

TFLite's convolutions have channels last. A network with channels first has a transposition before
and behind each of them; but most operators between two convolutions do not depend on the order of
the axes. So each of these swaps places with the transposition before it:

    f(TRANSPOSE(x)) -> TRANSPOSE(f(x))      f elementwise, or a mean over some axes
    TRANSPOSE(TRANSPOSE(x)) -> x
"""

import copy

import numpy as np

from inference.graph.tflite_graph import DTYPES, apply, graphs

ON_ONE = {"ABS", "ELU", "EXP", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "NEG",
          "RELU", "RELU6", "RSQRT", "SQRT", "SQUARE", "TANH"}  # fmt: skip
ON_TWO = {"ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "POW", "SQUARED_DIFFERENCE", "SUB"}
REDUCTIONS = {"MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM"}
MOVES = {"RESHAPE", "TRANSPOSE"}


def sink_transpositions(model):
    """Returns the model with fewer transpositions, or the unchanged one if there are no fewer."""
    trial = copy.deepcopy(model)
    rules = (from_reshape, meet, pass_one, pass_two, pass_reduction)
    for graph in graphs(trial):
        apply(graph, rules)
    for graph in graphs(trial):
        apply(graph, (drop, to_reshape))
    return trial if _moves(trial) < _moves(model) else model


def from_reshape(graph, operator):
    """RESHAPE(x) that only moves axes of size 1 -> TRANSPOSE(x)."""
    shapes = [graph.shape(index) for index in (operator.inputs[0], operator.outputs[0])]
    if graph.kind(operator) != "RESHAPE" or shapes[0] == shapes[1] or len(shapes[0]) > 4:
        return False
    kept = [[size for size in shape if size != 1] for shape in shapes]
    if kept[0] != kept[1] or len(shapes[0]) != len(shapes[1]):
        return False
    ones = iter([axis for axis, size in enumerate(shapes[0]) if size == 1])
    others = iter([axis for axis, size in enumerate(shapes[0]) if size != 1])
    order = [next(ones if size == 1 else others) for size in shapes[1]]
    _put(graph, operator, _transpose(graph, operator.inputs[0], order, operator.outputs[0]))
    return True


def to_reshape(graph, operator):
    """TRANSPOSE(x) that only moves axes of size 1 -> RESHAPE(x), which moves no data."""
    order = _order(graph, operator)
    if order is None:
        return False
    source, target = operator.inputs[0], operator.outputs[0]
    moved = [axis for axis in order if graph.shape(source)[axis] != 1]
    if moved != sorted(moved) or graph.shape(target).count(-1) > 1:
        return False
    shape = graph.add_constant("shape", np.int32(graph.shape(target)))
    _put(graph, operator, graph.make("RESHAPE", [source, shape], [target]))
    return True


def meet(graph, operator):
    """TRANSPOSE(TRANSPOSE(x)) -> TRANSPOSE(x)."""
    second, before = _order(graph, operator), graph.maker(operator.inputs[0])
    first = _order(graph, before)
    if first is None or second is None:
        return False
    order = [first[axis] for axis in second]
    _put(graph, operator, _transpose(graph, before.inputs[0], order, operator.outputs[0]))
    graph.remove_unused(before)
    return True


def drop(graph, operator):
    """TRANSPOSE(x) that moves no axis -> x."""
    order, target = _order(graph, operator), operator.outputs[0]
    if order is None or order != sorted(order) or target in graph.subgraph.outputs:
        return False
    graph.replace(target, operator.inputs[0])
    graph.remove(operator)
    return True


def pass_one(graph, operator):
    """f(TRANSPOSE(x)) -> TRANSPOSE(f(x)) for elementwise f."""
    before = graph.maker(operator.inputs[0]) if graph.kind(operator) in ON_ONE else None
    order = _order(graph, before)
    if order is None:
        return False
    return _pass(graph, operator, [before], [before.inputs[0]], order)


def pass_two(graph, operator):
    """f(TRANSPOSE(x), TRANSPOSE(y)) -> TRANSPOSE(f(x, y)); a constant y is transposed at once.

    Operands of different ranks, and transpositions in different orders, are left unchanged.
    """
    if graph.kind(operator) not in ON_TWO:
        return False
    makers = [graph.maker(index) for index in operator.inputs]
    orders = [_order(graph, maker) for maker in makers]
    order = next((one for one in orders if one is not None), None)
    if order is None:
        return False
    sources = []
    for index, maker, own in zip(operator.inputs, makers, orders, strict=True):
        constant = graph.constant(index)
        if own == order:
            sources.append(maker.inputs[0])
        elif constant is not None and constant.ndim == len(order):
            sources.append(graph.add_constant("transposed", constant.transpose(np.argsort(order))))
        elif constant is not None and constant.size == 1:
            sources.append(index)
        else:
            return False
    return _pass(graph, operator, makers, sources, order)


def pass_reduction(graph, operator):
    """MEAN(TRANSPOSE(x), axes) -> TRANSPOSE(MEAN(x, the same axes before the transposition))."""
    before = graph.maker(operator.inputs[0]) if graph.kind(operator) in REDUCTIONS else None
    order, axes = _order(graph, before), None
    if order is not None:
        axes = graph.constant(operator.inputs[1])
    if axes is None:
        return False
    axes = np.atleast_1d(axes) % len(order)
    moved = graph.add_constant("axes", np.int32(sorted(order[axis] for axis in axes)))
    if not operator.builtinOptions.keepDims:
        left = [axis for position, axis in enumerate(order) if position not in axes]
        order = [sorted(left).index(axis) for axis in left]
    return _pass(graph, operator, [before], [before.inputs[0], moved], order)


def _pass(graph, operator, makers, inputs, order):
    """Gives an operator other inputs, and puts the transposition behind it."""
    target = operator.outputs[0]
    shape = [graph.shape(target)[at] for at in np.argsort(order)]
    inner = graph.add_tensor("transposed", DTYPES[graph.tensor(target).type], shape)
    operator.inputs, operator.outputs = inputs, [inner]
    at = graph.operators.index(operator) + 1
    graph.operators.insert(at, _transpose(graph, inner, order, target))
    graph.remove_unused(*(maker for maker in makers if maker is not None))
    return True


def _order(graph, operator):
    """The order of axes after a TRANSPOSE, as a list; None for another operator."""
    if operator is None or graph.kind(operator) != "TRANSPOSE":
        return None
    order = graph.constant(operator.inputs[1])
    return None if order is None else order.tolist()


def _transpose(graph, source, order, target):
    return graph.make("TRANSPOSE", [source, graph.add_constant("order", np.int32(order))], [target])


def _put(graph, old, new):
    graph.operators[graph.operators.index(old)] = new


def _moves(model):
    return sum(graph.kind(one) in MOVES for graph in graphs(model) for one in graph.operators)
