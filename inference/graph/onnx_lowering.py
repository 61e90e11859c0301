"""Values, sizes and graphs of an .onnx file that is written straight from a jaxpr.

The network is traced for 2 and for 3 examples, side by side; a size that differs depends on the
batch, and is computed from an input when the file is run.
"""

from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from jax.extend.core import Literal
from jax.extend.source_info_util import summarize

from inference.graph.any_batch import SIZES, BatchDependent
from inference.graph.jax_graph import named, refusal
from inference.graph.onnx_graph import OPSET
from utils import UserError

# What runtimes compute only with some dtypes; for them, all others are cast to wider ones.
COMPUTING = {"add", "sub", "mul", "neg", "max", "min", "abs", "sign", "div", "clamp", "select_n",
             "lt", "le", "gt", "ge", "argmax", "argmin", "top_k", "cumsum", "reduce_max",
             "reduce_min", "reduce_sum", "reduce_prod", "dot_general", "rem"}  # fmt: skip
WIDE = {np.dtype(one): np.int32 for one in (bool, np.int8, np.uint8, np.int16, np.uint16)}
WIDE[np.dtype(np.uint32)] = np.int64


class Size(NamedTuple):
    """A size that depends on the batch: slope * batch + offset."""

    slope: int
    offset: int


class Lowering:
    """The operators of a jaxpr; the same jaxpr for another batch size tells which sizes vary.

    Args:
        operators: {primitive: f(lowering, equation, other, sizes of its output, *inputs)}, which
            returns a value, or a list of them.
        broadcasting: names of those whose inputs are expanded to one another's shape.
    """

    def __init__(self, operators, broadcasting):
        self.operators, self.broadcasting, self.tape = operators, broadcasting, ir.tape.Tape()
        self.values, self.sizes, self.narrow, self.batch, self.names = {}, {}, {}, None, 0
        self.in_condition = False

    def model(self, closed, other):
        """Returns the ir.Model of a ClosedJaxpr, and the same for another batch size."""
        pairs = zip(closed.jaxpr.invars, other.jaxpr.invars, strict=True)
        inputs = [self.value_of(*pair, f"network_inputs_{at}") for at, pair in enumerate(pairs)]
        for one, value in zip(closed.jaxpr.invars, inputs, strict=True):
            if self.batch is None and Size(1, 0) in self.sizes[one]:
                self.batch = value, self.sizes[one].index(Size(1, 0))
        outputs = []
        for at, value in enumerate(self.inline(closed, other, inputs)):
            one, two = (jaxpr.outvars[at].aval for jaxpr in (closed.jaxpr, other.jaxpr))
            value = self.op("Identity", value)
            value.shape = _shape(self.sizes_of(one.shape, two.shape))
            value.dtype, value.name = _dtype(one.dtype), f"network_outputs_{at}"
            outputs.append(value)
        return ir.Model(self.graph(inputs, outputs), ir_version=8)

    def graph(self, inputs, outputs):
        """The ir.Graph of all operators so far."""
        return ir.Graph(
            inputs, outputs, nodes=self.tape.nodes, initializers=self.tape.initializers,
            opset_imports={"": OPSET}, name="network",
        )  # fmt: skip

    def inner_graph(self, inputs, make):
        """The ir.Graph of a loop's body or a branch, whose operators `make()` adds."""
        outer, self.tape = self.tape, ir.tape.Tape()
        outputs = [self.op("Identity", one) for one in make()]
        graph, self.tape = self.graph(inputs, outputs), outer
        self.names += 1
        for value in (value for node in graph for value in node.outputs):
            value.name = f"graph{self.names}_{value.name}"  # each graph counts its own from 0
        return graph

    def inline(self, closed, other, inputs):
        """Adds the operators of a ClosedJaxpr; returns its outputs."""
        jaxpr, twin = closed.jaxpr, other.jaxpr
        for variable, *pair in zip(jaxpr.constvars, closed.consts, other.consts, strict=True):
            one, two = map(np.asarray, pair)
            if one.shape != two.shape or one.tobytes() != two.tobytes():
                raise BatchDependent("a constant depends on the batch size")
            self.values[variable], self.sizes[variable] = self.constant(one), list(one.shape)
        for one, two, value in zip(jaxpr.invars, twin.invars, inputs, strict=True):
            self.values[one] = value
            self.sizes[one] = self.sizes_of(one.aval.shape, two.aval.shape)
        for one, two in zip_longest(jaxpr.eqns, twin.eqns):
            if not (one and two) or one.primitive is not two.primitive:
                line = summarize((one or two).source_info)
                raise BatchDependent(f"it has other operations for another batch size ({line})")
        for pair in zip(jaxpr.eqns, twin.eqns, strict=True):
            try:
                self.add(*pair)
            except BatchDependent as error:
                (reason,) = error.args
                line = f" ({summarize(pair[0].source_info)})" * (".py:" not in reason)
                raise BatchDependent(f"{reason}{line}") from None
        return list(map(self.atom, jaxpr.outvars, twin.outvars))

    def add(self, equation, other):
        """Adds the operators of one equation."""
        name = named(equation)
        for one, two in zip(equation.outvars, other.outvars, strict=True):
            self.sizes[one] = self.sizes_of(one.aval.shape, two.aval.shape)
        inputs = list(map(self.atom, equation.invars, other.invars))
        if name in self.broadcasting:
            inputs = self.unexpanded(inputs)
        try:
            if name not in self.operators:
                raise NotImplementedError
            sizes = self.sizes[equation.outvars[0]]
            inputs = [self.widened(name, *pair) for pair in zip(equation.invars, inputs)]  # noqa: B905
            outputs = self.operators[name](self, equation, other, sizes, *inputs)
        except NotImplementedError as error:
            raise UserError(refusal(equation, "an ONNX file", str(error))) from None
        outputs = outputs if isinstance(outputs, list) else [outputs]
        for variable, value in zip(equation.outvars, outputs, strict=True):
            if name in COMPUTING and variable.aval.dtype in WIDE:
                value = self.cast(value, variable.aval.dtype)
            self.values[variable] = value
            value.dtype = value.dtype or _dtype(variable.aval.dtype)

    def widened(self, name, atom, value):
        """An operation's input in a dtype that runtimes compute it with."""
        chooses = name == "select_n" and atom.aval.dtype == bool
        wide = None if name not in COMPUTING or chooses else WIDE.get(atom.aval.dtype)
        return self.cast(value, wide) if wide else value

    def sizes_of(self, shape, other):
        """A shape as integers, and Sizes where it depends on the batch."""
        if len(shape) != len(other):
            raise BatchDependent("an array has another rank for another batch size")
        return [
            a if a == b else Size(b - a, a - (b - a) * SIZES[0])
            for a, b in zip(shape, other, strict=True)
        ]

    def value_of(self, one, other, name):
        """The ir.Value of an input."""
        self.sizes[one] = self.sizes_of(one.aval.shape, other.aval.shape)
        shape = _shape(self.sizes[one])
        return ir.Value(name=name, shape=shape, type=ir.TensorType(_dtype(one.aval.dtype)))

    def atom(self, atom, other):
        """The value of a variable or a literal, which may be the batch size."""
        if not isinstance(atom, Literal):
            return self.values[atom]
        two, three = (np.asarray(one.val, one.aval.dtype) for one in (atom, other))
        if two.tobytes() == three.tobytes():
            return self.constant(two)
        if two.dtype.kind not in "iu" or two.ndim:
            raise BatchDependent("a number depends on the batch size")
        (size,) = self.sizes_of([two.item()], [three.item()])
        return self.cast(self.op("Squeeze", self.size(size)), two.dtype)

    def refuse_batch(self, equation, axes):
        """Refuses an operation whose axes have the batch among them; the condition of a loop may:
        it goes on until all examples are done."""
        sizes = self.own_sizes(equation.invars[0])
        if not self.in_condition and any(isinstance(sizes[axis], Size) for axis in axes):
            raise BatchDependent(f"{equation.primitive.name} along the batch")

    def own_sizes(self, atom):
        """The shape of an equation's input."""
        return list(atom.aval.shape) if isinstance(atom, Literal) else self.sizes[atom]

    def op(self, kind, *inputs, **attributes):
        """Adds an operator; returns its value."""
        return self.tape.op(kind, list(inputs), _plain(attributes))

    def constant(self, value):
        """A constant."""
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        return self.op("Constant", value=ir.tensor(array))

    def integers(self, *values):
        """A constant (n,) of int64."""
        return self.constant(np.asarray(values, np.int64).reshape(-1))

    def shape(self, sizes, free=False):
        """A value (n,) of a shape; with `free`, one varying size is -1, which Reshape computes."""
        varying = [one for one in sizes if isinstance(one, Size)]
        if not varying or (free and len(varying) == 1 and 0 not in sizes):
            return self.integers(*(-1 if isinstance(one, Size) else one for one in sizes))
        parts = [self.size(one) if isinstance(one, Size) else self.integers(one) for one in sizes]
        return self.op("Concat", *parts, axis=0)

    def size(self, one):
        """A value (1,) of a varying size."""
        if self.batch is None:
            raise BatchDependent("no input has the batch as a dimension of its own")
        value, axis = self.batch
        batch = self.op("Shape", value, start=axis, end=axis + 1)
        scaled = batch if one.slope == 1 else self.op("Mul", batch, self.integers(one.slope))
        return scaled if not one.offset else self.op("Add", scaled, self.integers(one.offset))

    def reshape(self, value, sizes):
        """A value in another shape."""
        return self.op("Reshape", value, self.shape(sizes, free=True))

    def transpose(self, value, order):
        """A value with its axes in another order."""
        order = [int(axis) for axis in order]
        return value if order == sorted(order) else self.op("Transpose", value, perm=order)

    def cast(self, value, dtype):
        """A value in another dtype."""
        return self.op("Cast", value, to=int(_dtype(dtype)))

    def unexpanded(self, inputs):
        """Inputs of an elementwise operator before they were expanded to one another's shape."""
        whole = [one for one in inputs if id(one) not in self.narrow]
        return [self.narrow.get(id(one), one) for one in inputs] if whole else inputs


def _plain(attributes):
    """Attributes without NumPy's numbers, which JAX's parameters may be."""
    return {name: np.asarray(one).tolist() if isinstance(one, int | np.integer | list | tuple)
            else one for name, one in attributes.items()}  # fmt: skip


def _shape(sizes):
    return ir.Shape([one if isinstance(one, int) else "batch" for one in sizes])


def _dtype(dtype):
    return ir.DataType.from_numpy(np.dtype(dtype))
