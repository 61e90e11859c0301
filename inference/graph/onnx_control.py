"""Operators of ONNX for the loops and branches of JAX: a Loop, or an If, with graphs inside."""

import numpy as np
import onnx_ir as ir

from inference.graph.any_batch import BatchDependent


def _scan(graph, equation, other, sizes, *inputs):
    """A Loop that looks up its step's elements, and stacks what each step returns."""
    params, twin = equation.params, other.params["jaxpr"]
    constants, carries = params["num_consts"], params["num_carry"]
    if params["length"] != other.params["length"]:
        raise BatchDependent("a scan over the batch")
    count = graph.constant(np.int64(params["length"]))
    at, state = _step_inputs(graph, params["jaxpr"], twin, constants, carries)

    def step():
        here = graph.op("Sub", graph.constant(np.int64(params["length"] - 1)), at) if (
            params["reverse"]) else at  # fmt: skip
        rows = [graph.op("Gather", one, here, axis=0) for one in inputs[constants + carries :]]
        given = [*inputs[:constants], *state[1:], *rows]
        return [state[0], *graph.inline(params["jaxpr"], twin, given)]

    body = graph.inner_graph([at, *state], step)
    start = [count, graph.constant(np.bool_(True)), *inputs[constants : constants + carries]]
    outputs = _many(graph, "Loop", start, len(equation.outvars), body=body)
    if params["reverse"]:
        ends = [graph.integers(one) for one in (-1, -(2**63) + 1, 0, -1)]
        outputs[carries:] = [graph.op("Slice", one, *ends) for one in outputs[carries:]]
    return outputs


def _while(graph, equation, other, sizes, *inputs):
    """A Loop without a count; its condition is computed before it and at each step's end."""
    params, twins = equation.params, other.params
    tested, constants = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    at, state = _step_inputs(
        graph, params["body_jaxpr"], twins["body_jaxpr"], params["body_nconsts"],
        len(inputs) - constants,
    )  # fmt: skip

    def condition(values):
        given, graph.in_condition = [*inputs[:tested], *values], True
        goes_on = graph.inline(params["cond_jaxpr"], twins["cond_jaxpr"], given)[0]
        graph.in_condition = False
        return goes_on

    def step():
        given = [*inputs[tested:constants], *state[1:]]
        values = graph.inline(params["body_jaxpr"], twins["body_jaxpr"], given)
        return [condition(values), *values]

    body = graph.inner_graph([at, *state], step)
    start = [None, condition(inputs[constants:]), *inputs[constants:]]
    return _many(graph, "Loop", start, len(equation.outvars), body=body)


def _cond(graph, equation, other, sizes, which, *inputs):
    """An If for each branch but the last, one inside the other."""
    branches = list(zip(equation.params["branches"], other.params["branches"], strict=True))
    index = which if equation.invars[0].aval.dtype != bool else graph.cast(which, np.int32)

    def chosen(at):
        if at == len(branches) - 1:
            return graph.inline(*branches[at], inputs)
        graphs = (
            graph.inner_graph([], lambda: graph.inline(*branches[at], inputs)),
            graph.inner_graph([], lambda: chosen(at + 1)),
        )
        here = graph.op("LessOrEqual", index, graph.constant(np.int32(at)))
        return _many(graph, "If", [here], len(equation.outvars),
                     then_branch=graphs[0], else_branch=graphs[1])  # fmt: skip

    return chosen(0)


def _step_inputs(graph, closed, other, first, count):
    """The inputs of a Loop's body: the number of the step, and [condition, *carried values]."""
    pairs = zip(closed.jaxpr.invars, other.jaxpr.invars, strict=True)
    carried = list(pairs)[first : first + count]
    graph.names += 1
    names = [f"loop{graph.names}_{at}" for at in range(count)]
    values = [graph.value_of(*pair, name) for pair, name in zip(carried, names, strict=True)]
    at, condition = (
        ir.Value(name=f"loop{graph.names}_{name}", shape=ir.Shape([]), type=ir.TensorType(dtype))
        for name, dtype in (("step", ir.DataType.INT64), ("condition", ir.DataType.BOOL))
    )
    return at, [condition, *values]


def _many(graph, kind, inputs, count, **attributes):
    """An operator with a list of outputs."""
    if count == 1:
        return [graph.op(kind, *inputs, **attributes)]
    return list(graph.tape.op_multi_out(kind, inputs, attributes, num_outputs=count))


OPERATORS = {"scan": _scan, "while": _while, "cond": _cond}
