"""Rewrites of Scans of an ONNX graph that are a standard recurrent layer: -> GRU or LSTM.

The nonlinear part of a step is compared with the patterns below. The gates before it may be written
in any way: `linear` finds the x A + h B + b that each one computes. Any other Scan is unchanged.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape
from onnxscript.rewriter import RewriteRule

from inference.graph.onnx_loops import BACKWARD, remove_unused


def gru(op, update, new, state):
    """(1 - z) * tanh(n) + z * h (https://arxiv.org/abs/1406.1078)."""
    update = op.Sigmoid(update)
    return op.Add(op.Mul(op.Sub(1.0, update), op.Tanh(new)), op.Mul(update, state))


def reset(op, reset, product):
    """r * (h B + b), a term of n, as in cuDNN and Flax; the article has r * h."""
    return op.Mul(op.Sigmoid(reset), product)


def lstm(op, enter, leave, forget, new, memory):
    """o * tanh(f * c + i * tanh(g)) (https://doi.org/10.1162/089976600300015015)."""
    kept = op.Mul(op.Sigmoid(forget), memory)
    memory = op.Add(kept, op.Mul(op.Sigmoid(enter), op.Tanh(new)), _outputs=["new_memory"])
    return op.Mul(op.Sigmoid(leave), op.Tanh(memory))


def recognise_recurrent(model):
    """Rewrites every Scan of a model that is a GRU or LSTM."""
    patterns = {one: RewriteRule(one, lambda op, **_: None).commute() for one in (gru, reset, lstm)}
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Scan" and node.attributes.get_int("num_scan_inputs") == 1:
            layer = _Step(model, node, patterns).read()
            if layer is not None:
                _replace(node, *layer)


def linear(value):
    """Returns a value as a sum of products: {source: matrix}, and its constant part under None.

    A value that is neither a sum nor a product with a matrix is a source itself.
    """
    if value.const_value is not None:
        return {None: value.const_value.numpy().reshape(1, -1).astype(np.float64)}
    node, size = value.producer(), value.shape[-1]
    kind = None if node is None else node.op_type
    if kind == "Add" and all(_is_as_wide(one, size) for one in node.inputs):
        return _sum(*map(linear, node.inputs), size)
    if kind in ("MatMul", "Gemm") and _is_plain_product(node):
        matrix = node.inputs[1].const_value.numpy().astype(np.float64)
        terms = {source: part @ matrix for source, part in linear(node.inputs[0]).items()}
        return _sum(terms, linear(node.inputs[2]), size) if node.inputs[2:] else terms
    if kind == "Split" and node.attributes.get_int("axis", 0) in (-1, len(value.shape) - 1):
        begin = sum(one.shape[-1] for one in node.outputs[: value.index()])
        terms = linear(node.inputs[0])
        return {source: part[:, begin : begin + size] for source, part in terms.items()}
    if kind == "Concat" and node.attributes.get_int("axis") in (-1, len(value.shape) - 1):
        terms, begin = {}, 0
        for one in node.inputs:
            widths = [(0, 0), (begin, size - begin - one.shape[-1])]
            parts = {source: np.pad(part, widths) for source, part in linear(one).items()}
            terms, begin = _sum(terms, parts, size), begin + one.shape[-1]
        return terms
    return {value: np.eye(size)}


class _Step:
    """The step of a Scan, to be compared with recurrent layers.

    `read_gru` and `read_lstm` return the number of the state h, and the gates in the operator's
    order, each (A, a, B, b) of x A + a + h B + b; or None if the step is another one.
    """

    def __init__(self, model, node, patterns):
        self.model, self.patterns = model, patterns
        self.body = node.attributes["body"].as_graph()
        *self.states, self.row = self.body.inputs
        outputs = list(self.body.outputs)
        self.new, self.rows = outputs[: len(self.states)], outputs[len(self.states) :]

    def read(self):
        """Reads the layer that the number of states suggests."""
        known = {1: self.read_gru, 2: self.read_lstm}
        plain = len(self.row.shape) == 2 and isinstance(self.row.shape[1], int)
        return known[len(self.states)]() if plain and len(self.states) in known else None

    def read_gru(self):
        """Reads a GRU."""
        (state,), (new,) = self.states, self.new
        found = self._match(gru, new)
        if found is None or found["state"] is not state or any(one is not new for one in self.rows):
            return None
        outer = linear(found["new"])
        gated = [source for source in outer if source not in (self.row, None)]
        inner = self._match(reset, gated[0]) if len(gated) == 1 else None
        if inner is None or not np.array_equal(outer.pop(gated[0]), np.eye(state.shape[-1])):
            return None
        gates = [self._gate(linear(one), state) for one in (found["update"], inner["reset"])]
        gates.append(self._gate(outer, state, linear(inner["product"])))
        return None if None in gates else (0, gates)

    def read_lstm(self):
        """Reads an LSTM."""
        for number, (state, new) in enumerate(zip(self.states, self.new, strict=True)):
            found = self._match(lstm, new)
            other = 1 - number
            if found is None or any(one is not new for one in self.rows):
                continue
            if found["memory"] is self.states[other] and found["new_memory"] is self.new[other]:
                names = ("enter", "leave", "forget", "new")
                gates = [self._gate(linear(found[name]), state) for name in names]
                return None if None in gates else (number, gates)
        return None

    def _match(self, pattern, value):
        """{name in a pattern: value} if the pattern computes this value; else None."""
        node = value.producer()
        if node is None or node.graph is not self.body:
            return None
        for one in self.patterns[pattern]:
            match = one.match(self.model, self.body, node, check_nodes_are_removable=False)
            if match:
                return match.bindings
        return None

    def _gate(self, outer, state, inner=None):
        """Returns (A, a, B, b) of x A + a + h B + b; None if there are other terms.

        Args:
            outer: {source: matrix} of x A + a.
            state: h.
            inner: {source: matrix} of h B + b; None if outer includes it, with b as part of a.
        """
        if inner is None:
            inner = {state: outer.pop(state)} if state in outer else {}
        if set(outer) - {self.row, None} or set(inner) - {state, None}:
            return None
        features, size = self.row.shape[-1], state.shape[-1]
        return (
            outer.get(self.row, np.zeros((features, size))),
            outer.get(None, np.zeros((1, size))),
            inner.get(state, np.zeros((size, size))),
            inner.get(None, np.zeros((1, size))),
        )


def _replace(node, hidden, gates):
    """Replaces a Scan by the operator, whose states have a leading axis of size 1."""
    tape, count = Tape(), len(node.inputs) - 1
    x, projection, offset = _before_projection(tape, node.inputs[-1])
    a_x, a, b_h, b = (np.concatenate(one, axis=1) for one in zip(*gates, strict=True))
    weights = [
        (projection @ a_x).T, b_h.T, np.concatenate([offset @ a_x + a, b], axis=1)[0]
    ]  # fmt: skip
    inputs = [x] + [
        tape.op("Constant", [], {"value": ir.tensor(np.float32(one)[None])}) for one in weights
    ]
    order = [hidden, *(number for number in range(count) if number != hidden)]
    axis = [tape.op("Constant", [], {"value_ints": [one]}) for one in (0, 1)]
    inputs += [None] + [tape.op("Unsqueeze", [node.inputs[one], axis[0]]) for one in order]
    if all(_is_zero(node.inputs[one]) for one in order):
        inputs = inputs[:4]  # zeros are the default
    kind = "GRU" if count == 1 else "LSTM"
    attributes = {"hidden_size": b_h.shape[0]}
    attributes |= {"linear_before_reset": 1} if kind == "GRU" else {}
    directions = node.attributes.get_ints("scan_input_directions", [0])
    attributes |= {"direction": "reverse"} if BACKWARD in directions else {}
    rows, *finals = tape.op_multi_out(kind, inputs, attributes, num_outputs=1 + count)
    for number, old in enumerate(node.outputs):
        final = finals[order.index(number)] if number < count else None
        new = tape.op("Squeeze", [rows, axis[1]] if final is None else [final, axis[0]])
        new.name, new.type, new.shape = old.name, old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    node.prepend(tape.nodes)
    body = node.attributes["body"].as_graph()
    body.outputs.clear()
    remove_unused(body)  # the body uses values from outside as well
    node.graph.remove(node, safe=True)


def _before_projection(tape, x):
    """(y, matrix, row) so that x is y @ matrix + row, which becomes part of the operator."""
    node = x.producer()
    turned = node is not None and node.op_type == "Transpose"
    order = list(node.attributes.get_ints("perm", [])) if turned else None
    inner = node.inputs[0] if order == [1, 0, 2] else x
    terms = linear(inner)
    row = terms.pop(None, np.zeros((1, x.shape[-1])))
    (source, matrix), *others = terms.items()
    if others or source.shape is None or len(source.shape) != 3:
        return x, np.eye(x.shape[-1]), np.zeros((1, x.shape[-1]))
    if inner is not x:
        source = tape.op("Transpose", [source], {"perm": order})
    return source, matrix, row


def _is_zero(value):
    """Whether a value is zeros, of any number of rows."""
    node = value.producer()
    if node is not None and node.op_type == "Expand":
        return _is_zero(node.inputs[0])
    return value.const_value is not None and not value.const_value.numpy().any()


def _sum(one, other, size):
    total = {key: one.get(key, 0) + other.get(key, 0) for key in one | other}
    if None in total:
        total[None] = np.broadcast_to(total[None], (1, size))
    return total


def _is_as_wide(value, size):
    if value.const_value is not None:
        return value.const_value.size in (1, size)
    return value.shape is not None and value.shape[-1] == size


def _is_plain_product(node):
    """Whether an operator is x @ matrix, with or without a bias."""
    attributes, matrix = node.attributes, node.inputs[1].const_value
    plain = not attributes.get_int("transA", 0) and not attributes.get_int("transB", 0)
    whole = attributes.get_float("alpha", 1.0) == attributes.get_float("beta", 1.0) == 1
    return plain and whole and matrix is not None and len(matrix.shape) == 2
