"""Rewrites of counted loops of an ONNX graph: -> Scan, or Loop with a number of iterations.

TFLite has one kind of loop, "while". So tf2onnx writes a JAX scan as a Loop whose states are its
counter, the arrays that it reads rows from and those that it writes rows into; at the end of each
iteration it compares the counter with a number. ONNX has a form for each of these:

    i = 0; while i < n: ...; i = i + 1    n iterations
    a state that no iteration changes     a value from outside the loop
    x[i] or x[n - 1 - i], n rows          an input of Scan, which iterates over its rows
    y[i] = row, n rows                    an output of Scan or Loop, which stack the rows
"""

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

FORWARD, BACKWARD = 0, 1  # the directions of Scan


class State(NamedTuple):
    """A value that a loop carries from one iteration to the next."""

    initial: ir.Value
    inside: ir.Value  # at the start of an iteration
    new: ir.Value  # at the end of an iteration
    final: ir.Value


class Row(NamedTuple):
    """A row that an iteration reads from an array, or writes into one."""

    whole: ir.Value  # the array, outside the loop
    inside: ir.Value
    direction: int


def simplify_loops(model):
    """Rewrites every Loop of a model that counts its iterations, inner ones first."""
    for node in reversed(list(model.graph.all_nodes())):
        if node.op_type == "Loop":
            states = _states(node)
            counter, count = _counter(node, states)
            if counter is not None:
                _rewrite(node, states, counter, count)


def number(value):
    """Returns the number of a constant with one element, or None."""
    constant = None if value is None else value.const_value
    return constant.numpy().item() if constant is not None and constant.size == 1 else None


def remove_unused(graph):
    """Removes the nodes of a graph whose outputs nothing uses."""
    for node in reversed(list(graph)):
        if not any(one.uses() or one.is_graph_output() for one in node.outputs):
            graph.remove(node, safe=True)


def _rewrite(node, states, counter, count):
    body = node.attributes["body"].as_graph()
    states.remove(counter)
    for state in [one for one in states if _is_unchanged(one)]:
        states.remove(state)
        state.inside.replace_all_uses_with(state.initial)
        state.final.replace_all_uses_with(state.initial, replace_graph_outputs=True)
    reads = _take_reads(body, counter.inside, count)
    writes = _take_writes(body, states, counter.inside, count, both_ways=bool(reads))
    results = [one.new for one in states] + [one.inside for one in writes]
    body.outputs[:] = [*results, counter.new]
    remove_unused(body)
    step = counter.new.producer()
    if counter.new.uses() or any(use.node is not step for use in counter.inside.uses()):
        states, results = [counter, *states], [counter.new, *results]
    else:
        body.outputs[:] = results
        body.remove(step, safe=True)
    new = (_scan if reads else _loop)(node, states, reads, writes, results, count)
    finals = [one.final for one in states] + [one.whole for one in writes]
    for old, value in zip(finals, new.outputs, strict=True):
        value.name, value.type, value.shape = old.name, old.type, old.shape
        old.replace_all_uses_with(value, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)


def _scan(node, states, reads, writes, results, count):
    """Inserts the Scan that replaces a Loop."""
    attributes = {"body": node.attributes["body"], "num_scan_inputs": len(reads)}
    for name, rows in (("input", reads), ("output", writes)):
        if rows:
            attributes[f"scan_{name}_directions"] = [one.direction for one in rows]
    body = attributes["body"].as_graph()
    body.inputs[:] = [one.inside for one in (*states, *reads)]
    body.outputs[:] = results
    inputs = [one.initial for one in states] + [one.whole for one in reads]
    scan = ir.node("Scan", inputs, attributes, num_outputs=len(results))
    node.prepend(scan)
    return scan


def _loop(node, states, reads, writes, results, count):
    """Inserts the Loop with a number of iterations that replaces one with a comparison."""
    body = node.attributes["body"].as_graph()
    condition = ir.node("Identity", [body.inputs[1]])
    body.append(condition)
    body.inputs[:] = [*body.inputs[:2], *(one.inside for one in states)]
    body.outputs[:] = [condition.outputs[0], *results]
    constant = ir.node("Constant", [], {"value": ir.tensor(np.int64(count))})
    inputs = [constant.outputs[0], node.inputs[1], *(one.initial for one in states)]
    loop = ir.node("Loop", inputs, {"body": node.attributes["body"]}, num_outputs=len(results))
    node.prepend([constant, loop])
    return loop


def _states(node):
    body = node.attributes["body"].as_graph()
    parts = node.inputs[2:], body.inputs[2:], body.outputs[1:], node.outputs
    return [State(*one) for one in zip(*parts, strict=True)]


def _counter(node, states):
    """The State that counts from 0 up to a number, and the number; or None, None."""
    compared = node.attributes["body"].as_graph().outputs[0].producer()
    if compared is not None and compared.op_type == "Less" and number(node.inputs[1]) is True:
        limit = number(compared.inputs[1])
        for state in states:
            counted = (
                _line(compared.inputs[0], state.inside) == (1, 1) == _line(state.new, state.inside)
            )
            used = state.final.uses() or state.final.is_graph_output()
            if counted and number(state.initial) == 0 and limit is not None and not used:
                return state, int(np.ceil(limit))
    return None, None


def _is_unchanged(state):
    producer = state.new.producer()
    copies = producer is not None and producer.op_type == "Identity"
    return state.inside in (state.new, producer.inputs[0] if copies else None)


def _take_reads(body, counter, count):
    """The rows that iterations read from arrays outside; leaves their lookups unused."""
    rows = []
    for node in list(body):
        if node.op_type != "Gather" or node.attributes.get_int("axis", 0):
            continue
        whole, index = node.inputs
        direction = _direction(index, counter, count)
        known = whole.graph is not body and whole.shape is not None and whole.shape[0] == count
        if known and direction is not None:
            (old,) = node.outputs
            row = ir.Value(name=old.name, shape=ir.Shape(whole.shape[1:]), type=whole.type)
            old.name = f"{old.name}_read"
            old.replace_all_uses_with(row, replace_graph_outputs=True)
            rows.append(Row(whole, row, direction))
    return rows


def _take_writes(body, states, counter, count, both_ways):
    """The rows that iterations write; removes the states of the whole arrays from the list."""
    rows = []
    for state in list(states):
        node = state.new.producer()
        if node is None or node.op_type != "TFL_DYNAMIC_UPDATE_SLICE":
            continue
        whole, update, start = node.inputs
        direction = _direction(_first(start), counter, count)
        shape = state.inside.shape
        rowwise = shape is not None and shape[0] == count and update.shape[0] == 1
        alone = whole is state.inside and len(whole.uses()) == 1 and not state.new.uses()
        if rowwise and alone and direction in ((FORWARD, BACKWARD) if both_ways else (FORWARD,)):
            rows.append(Row(state.final, _row(node, update), direction))
            states.remove(state)
    return rows


def _row(node, update):
    """An update (1, ...) without its first axis."""
    before = update.producer()
    source = before.inputs[0] if before is not None and before.op_type == "Reshape" else None
    if source is not None and source.shape is not None:
        kept = [size if isinstance(size, int) else None for size in source.shape]
        wanted = [size if isinstance(size, int) else None for size in update.shape[1:]]
        if kept == wanted and kept.count(None) <= 1:
            return source
    axes = ir.node("Constant", [], {"value_ints": [0]})
    squeeze = ir.node("Squeeze", [update, axes.outputs[0]])
    node.prepend([axes, squeeze])
    return squeeze.outputs[0]


def _direction(index, counter, count):
    """The direction in which an index visits each row once; None if it does not."""
    node = None if index is None else index.producer()
    if node is not None and node.op_type == "Clip":  # to the array's rows, where it is in any case
        if [number(one) for one in node.inputs[1:]] != [0, count - 1]:
            return None
        index = node.inputs[0]
    return {(1, 0): FORWARD, (-1, count - 1): BACKWARD}.get(_line(index, counter))


def _first(start):
    """The i of a start (i, 0, 0, ...); None if it is of another form."""
    node = start.producer()
    parts = list(node.inputs) if node is not None and node.op_type == "Concat" else [start]
    node = parts[0].producer()
    if node is None or node.op_type != "Unsqueeze" or any(number(one) != 0 for one in parts[1:]):
        return None
    return node.inputs[0]


def _line(value, counter):
    """(a, b) if a value is a * counter + b; else None."""
    if value is counter:
        return 1, 0
    if number(value) is not None:
        return 0, number(value)
    node = None if value is None else value.producer()
    if node is None or node.op_type not in ("Add", "Sub", "Cast", "Identity"):
        return None
    lines = [_line(one, counter) for one in node.inputs]
    if None in lines or len(lines) == 1:
        return None if None in lines else lines[0]
    sign = 1 if node.op_type == "Add" else -1
    return tuple(a + sign * b for a, b in zip(*lines, strict=True))
