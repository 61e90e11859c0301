"""Small rewrites of a .tflite graph: fewer operators, the same values to the last few bits.

XLA knows a sum without the axes it runs over; NumPy-like code wants a mean with them. So what was
`x.mean(-1, keepdims=True)` comes as SUM, MUL by 1/n and RESHAPE: three operators for one, and no
reader of the file sees a mean in them. Each rule below says what it looks for and what it leaves.
"""

import numpy as np

from inference.tflite_graph import graphs

ELEMENTWISE = {"ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW"}  # with a single number
UNARY = {"RSQRT", "SQRT", "EXP", "LOG", "NEG", "ABS"}
REDUCTIONS = {"SUM", "MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"}


def simplify(model):
    """Applies every rule until none finds anything; the model changes in place."""
    rules = (merge_reshapes, drop_reshape, sum_to_mean, keep_reduced_axes)
    for graph in graphs(model):
        while any(rule(graph, operator) for rule in rules for operator in list(graph.operators)):
            pass
    return model


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
    """MUL(SUM(x), 1/n), n being how many are summed -> MEAN(x)."""
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


def keep_reduced_axes(graph, operator):
    """RESHAPE(f(MEAN(x))), which only brings the axes back -> f(MEAN(x, keep_dims)).

    f: any number of operators on each element, with single numbers.
    """
    if graph.kind(operator) != "RESHAPE":
        return False
    chain, before = [], graph.maker(operator.inputs[0])
    while before is not None and graph.has_one_user(before.outputs[0]):
        if graph.kind(before) in REDUCTIONS:
            break
        if not _on_each_element(graph, before):
            return False
        chain.append(before)
        before = graph.maker(before.inputs[0])
    if before is None or graph.kind(before) not in REDUCTIONS or before.builtinOptions.keepDims:
        return False
    kept = np.array(graph.shape(before.inputs[0]))
    kept[_axes(graph, before)] = 1
    one_user = graph.has_one_user(before.outputs[0])
    if not one_user or tuple(kept) != graph.shape(operator.outputs[0]):
        return False
    before.builtinOptions.keepDims = True
    for one in (before, *chain):
        graph.set_shape(one.outputs[0], [int(size) for size in kept])
    graph.replace(operator.outputs[0], operator.inputs[0])
    graph.remove(operator)
    return True


def _axes(graph, reduction):
    return np.atleast_1d(graph.constant(reduction.inputs[1]))


def _on_each_element(graph, operator):
    if graph.kind(operator) in UNARY:
        return True
    constant = graph.constant(operator.inputs[1]) if len(operator.inputs) == 2 else None
    return graph.kind(operator) in ELEMENTWISE and constant is not None and constant.ndim == 0
