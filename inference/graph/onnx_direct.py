"""ONNX straight from the jaxpr, where the way over a .tflite file does not lead to it.

TFLite and ONNX have different gaps: TFLite has no arrays of more than six dimensions, and nothing
of ONNX's scatters is left in a .tflite file. Each primitive of JAX becomes an operator here, or a
few. The network is traced for 2 and for 3 examples, side by side; a size that differs depends on
the batch, and is computed from an input when the file is run.
"""

import math
from typing import NamedTuple

import jax
import numpy as np
import onnx_ir as ir
from jax.extend.core import Literal
from jax.extend.source_info_util import summarize

from inference.graph.any_batch import SIZES, BatchDependent
from inference.graph.jax_graph import exportable
from inference.graph.jax_substitutes import FOR_ONNX
from inference.graph.onnx_graph import OPSET, simplify, write
from utils import UserError

UNARY = {
    "abs": "Abs", "neg": "Neg", "exp": "Exp", "log": "Log", "sin": "Sin", "cos": "Cos",
    "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh",
    "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "tanh": "Tanh", "logistic": "Sigmoid",
    "sqrt": "Sqrt", "floor": "Floor", "ceil": "Ceil", "sign": "Sign", "erf": "Erf",
    "round": "Round", "copy": "Identity", "copy_p": "Identity", "stop_gradient": "Identity",
    "reduce_precision": "Identity", "optimization_barrier": "Identity",
}  # fmt: skip
BINARY = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min",
    "pow": "Pow", "add_any": "Add", "eq": "Equal", "lt": "Less", "le": "LessOrEqual",
    "gt": "Greater", "ge": "GreaterOrEqual",
}  # fmt: skip
LOGICAL = {"and": ("And", "BitwiseAnd"), "or": ("Or", "BitwiseOr"), "xor": ("Xor", "BitwiseXor")}
REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
              "reduce_prod": "ReduceProd", "reduce_or": "ReduceMax",
              "reduce_and": "ReduceMin"}  # fmt: skip
SCATTERS = {"scatter": "none", "scatter-add": "add", "scatter-mul": "mul", "scatter-max": "max",
            "scatter-min": "min"}  # fmt: skip


class Size(NamedTuple):
    """A size that depends on the batch: slope * batch + offset."""

    slope: int
    offset: int


def to_onnx(network, batches=SIZES, metadata=None, opset=None):
    """Returns the bytes of an .onnx file.

    Args:
        network: Network.
        batches: two batch sizes for a file of any, or one.
        metadata: dict of JSON values, written into the file.
        opset: the version of ONNX's operators; None: the lowest that has all of them.

    Raises:
        UserError: a primitive has no counterpart, or depends on the batch size.
    """
    traced = []
    for batch in batches:
        arrays = [jax.ShapeDtypeStruct((batch, *one.shape), one.dtype) for one in network.inputs]
        function = exportable(network.function, *arrays, substitutes=FOR_ONNX, refused={})
        function = exportable(function, *arrays, substitutes={}, refused={})  # without inner calls
        traced.append(jax.make_jaxpr(function)(*arrays))
    lowering = Lowering(traced[0].jaxpr, traced[-1].jaxpr)
    model = lowering.model([one.consts for one in traced])
    simplify(model)
    return write(model, network.names, metadata, opset)


class Lowering:
    """The operators of one jaxpr; the same jaxpr for another batch size tells which sizes vary."""

    def __init__(self, jaxpr, other):
        self.jaxpr, self.other, self.tape = jaxpr, other, ir.tape.Tape()
        self.values, self.sizes, self.narrow, self.batch = {}, {}, {}, None

    def model(self, constants):
        """Returns the ir.Model."""
        for variable, *pair in zip(self.jaxpr.constvars, *constants, strict=True):
            one, other = map(np.asarray, pair)
            if one.shape != other.shape or one.tobytes() != other.tobytes():
                raise BatchDependent("a constant depends on the batch size")
            self.values[variable] = self.constant(one)
            self.sizes[variable] = list(one.shape)
        inputs = []
        for at, (one, other) in enumerate(zip(self.jaxpr.invars, self.other.invars, strict=True)):
            value = self.value_of(one, other, f"network_inputs_{at}")
            self.values[one] = value
            inputs.append(value)
            sizes = self.sizes[one]
            if self.batch is None and Size(1, 0) in sizes:
                self.batch = value, sizes.index(Size(1, 0))
        self.run()
        outputs = []
        for at, (one, other) in enumerate(zip(self.jaxpr.outvars, self.other.outvars, strict=True)):
            value = self.op("Identity", self.atom(one, other))
            shape = self.sizes_of(one.aval.shape, other.aval.shape)
            value.shape = ir.Shape([s if isinstance(s, int) else "batch" for s in shape])
            value.dtype, value.name = _dtype(one.aval.dtype), f"network_outputs_{at}"
            outputs.append(value)
        graph = ir.Graph(inputs, outputs, nodes=self.tape.nodes,
                         initializers=self.tape.initializers, opset_imports={"": OPSET},
                         name="network")  # fmt: skip
        return ir.Model(graph, ir_version=8)

    def run(self):
        """Adds the operators of every equation."""
        if len(self.jaxpr.eqns) != len(self.other.eqns):
            raise BatchDependent("its graph has other operators for another batch size")
        for equation, other in zip(self.jaxpr.eqns, self.other.eqns, strict=True):
            if equation.primitive is not other.primitive:
                raise BatchDependent("its graph has other operators for another batch size")
            for one, two in zip(equation.outvars, other.outvars, strict=True):
                self.sizes[one] = self.sizes_of(one.aval.shape, two.aval.shape)
            try:
                outputs = self.equation(equation, other)
            except NotImplementedError as error:
                raise UserError(_refusal(equation, error)) from None
            outputs = outputs if isinstance(outputs, list) else [outputs]
            for variable, value in zip(equation.outvars, outputs, strict=True):
                self.values[variable] = value
                value.dtype = value.dtype or _dtype(variable.aval.dtype)

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
        shape = ir.Shape([s if isinstance(s, int) else "batch" for s in self.sizes[one]])
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
        """Refuses an operation along the batch."""
        sizes = self.own_sizes(equation.invars[0])
        if any(isinstance(sizes[axis], Size) for axis in axes):
            line = summarize(equation.source_info)
            raise BatchDependent(f"{equation.primitive.name} along the batch ({line})")

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

    def equation(self, equation, other):
        """Adds the operators of one equation; returns its value, or a list of values."""
        name = equation.primitive.name
        inputs = list(map(self.atom, equation.invars, other.invars))
        sizes = self.sizes[equation.outvars[0]]
        if name in BINARY or name in LOGICAL or name in ("ne", "select_n", "clamp", "rem"):
            inputs = self.unexpanded(inputs)
        if name in UNARY:
            return self.op(UNARY[name], inputs[0])
        if name in BINARY:
            return self.op(BINARY[name], *inputs)
        if name in LOGICAL:
            logical, bitwise = LOGICAL[name]
            return self.op(logical if _is_boolean(equation) else bitwise, *inputs)
        if name in REDUCTIONS:
            return self.reduction(equation, inputs[0])
        if name in SCATTERS:
            return self.scatter(equation, *inputs)
        method = getattr(self, f"_{name}", None)
        if method is None:
            raise NotImplementedError
        return method(equation, other, sizes, *inputs)

    def unexpanded(self, inputs):
        """Inputs of an elementwise operator before they were expanded to one another's shape."""
        whole = [one for one in inputs if id(one) not in self.narrow]
        return [self.narrow.get(id(one), one) for one in inputs] if whole else inputs

    def reduction(self, equation, x):
        """A sum, product or extreme over axes."""
        boolean = _is_boolean(equation)
        self.refuse_batch(equation, equation.params["axes"])
        x = self.cast(x, np.int32) if boolean else x
        axes = self.integers(*equation.params["axes"])
        y = self.op(REDUCTIONS[equation.primitive.name], x, axes, keepdims=0)
        return self.cast(y, bool) if boolean else y

    def scatter(self, equation, operand, indices, updates):
        """A scatter in the form of `jax_substitutes.scatter`: whole elements along some axes."""
        numbers = equation.params["dimension_numbers"]
        axes, rank = list(numbers.scatter_dims_to_operand_dims), equation.invars[0].aval.ndim
        order = [*axes, *(axis for axis in range(rank) if axis not in axes)]
        operand = self.transpose(operand, order)
        y = self.op("ScatterND", operand, self.cast(indices, np.int64), updates,
                    reduction=SCATTERS[equation.primitive.name])  # fmt: skip
        return self.transpose(y, np.argsort(order))

    def _gather(self, equation, other, sizes, operand, indices):
        numbers, slices = equation.params["dimension_numbers"], equation.params["slice_sizes"]
        aval = equation.invars[0].aval
        axes = list(numbers.start_index_map)
        rest = [axis for axis in range(aval.ndim) if axis not in axes]
        if any(slices[axis] != aval.shape[axis] for axis in rest):
            raise NotImplementedError("slices of other axes")
        operand = self.transpose(operand, [*axes, *rest])
        found = self.op("GatherND", operand, self.cast(indices, np.int64))
        outer = equation.invars[1].aval.ndim - 1
        kept = [axis for axis in range(aval.ndim) if axis not in numbers.collapsed_slice_dims]
        places = {axis: outer + at for at, axis in enumerate(rest)}
        ones = [axis for axis in kept if axis not in places]
        if ones:
            rank = outer + len(rest)
            found = self.op("Unsqueeze", found, self.integers(*range(rank, rank + len(ones))))
            places |= {axis: rank + at for at, axis in enumerate(ones)}
        offsets = dict(zip(numbers.offset_dims, (places[axis] for axis in kept), strict=True))
        outers = iter(range(outer))
        order = [offsets[at] if at in offsets else next(outers) for at in range(len(sizes))]
        return self.transpose(found, order)

    def _ne(self, equation, other, sizes, x, y):
        return self.op("Not", self.op("Equal", x, y))

    def _not(self, equation, other, sizes, x):
        return self.op("Not" if _is_boolean(equation) else "BitwiseNot", x)

    def _rem(self, equation, other, sizes, x, y):
        return self.op("Mod", x, y, fmod=1)

    def _is_finite(self, equation, other, sizes, x):
        return self.op("Not", self.op("Or", self.op("IsNaN", x), self.op("IsInf", x)))

    def _square(self, equation, other, sizes, x):
        return self.op("Mul", x, x)

    def _rsqrt(self, equation, other, sizes, x):
        return self.op("Reciprocal", self.op("Sqrt", x))

    def _exp2(self, equation, other, sizes, x):
        return self.op("Pow", self.constant(np.float32(2)), x)

    def _expm1(self, equation, other, sizes, x):
        half = self.op("Tanh", self.op("Mul", x, self.constant(np.float32(0.5))))
        return self.op("Mul", self.op("Add", self.op("Exp", x), self.constant(np.float32(1))), half)

    def _log1p(self, equation, other, sizes, x):
        one = self.constant(np.float32(1))
        more = self.op("Add", x, one)
        ratio = self.op("Div", x, self.op("Sub", more, one))
        exact = self.op("Mul", self.op("Log", more), ratio)
        special = self.op("Or", self.op("Equal", more, one), self.op("IsInf", x))
        return self.op("Where", special, x, exact)

    def _integer_pow(self, equation, other, sizes, x):
        exponent, dtype = equation.params["y"], equation.invars[0].aval.dtype
        if exponent in (2, 3):
            square = self.op("Mul", x, x)
            return square if exponent == 2 else self.op("Mul", square, x)
        return self.op("Pow", x, self.constant(np.asarray(exponent, dtype)))

    def _select_n(self, equation, other, sizes, which, *cases):
        if len(cases) != 2:
            raise NotImplementedError("more than two cases")
        if not _is_boolean(equation):
            which = self.cast(which, bool)
        return self.op("Where", which, cases[1], cases[0])

    def _clamp(self, equation, other, sizes, low, x, high):
        return self.op("Min", self.op("Max", x, low), high)

    def _convert_element_type(self, equation, other, sizes, x):
        return self.cast(x, equation.params["new_dtype"])

    def _broadcast_in_dim(self, equation, other, sizes, x):
        axes, shape = equation.params["broadcast_dimensions"], [1] * len(sizes)
        own = self.own_sizes(equation.invars[0])
        for axis, size in zip(axes, own, strict=True):
            shape[axis] = size
        x = x if shape == own else self.reshape(x, shape)
        if shape == sizes:
            return x
        y = self.op("Expand", x, self.shape(sizes))
        self.narrow[id(y)] = x
        return y

    def _reshape(self, equation, other, sizes, x):
        return self.reshape(x, sizes)

    _squeeze = _expand_dims = _reshape

    def _transpose(self, equation, other, sizes, x):
        return self.transpose(x, list(equation.params["permutation"]))

    def _rev(self, equation, other, sizes, x):
        axes = equation.params["dimensions"]
        ends = [-(2**63) + 1] * len(axes)
        return self.op("Slice", x, *(self.integers(*one) for one in (
            [-1] * len(axes), ends, axes, [-1] * len(axes))))  # fmt: skip

    def _slice(self, equation, other, sizes, x):
        params, others = equation.params, other.params
        if params["start_indices"] != others["start_indices"]:
            raise BatchDependent("a slice starts elsewhere for another batch size")
        ends = [
            a if a == b else 2**62
            for a, b in zip(params["limit_indices"], others["limit_indices"], strict=True)
        ]
        rank = range(len(ends))
        steps = params["strides"] or [1] * len(ends)
        return self.op("Slice", x, *(self.integers(*one) for one in (
            params["start_indices"], ends, rank, steps)))  # fmt: skip

    def _pad(self, equation, other, sizes, x, value):
        config = equation.params["padding_config"]
        if config != other.params["padding_config"]:
            raise BatchDependent("padding depends on the batch size")
        if any(inside for _, _, inside in config):
            raise NotImplementedError("padding inside an array")
        around = [max(low, 0) for low, _, _ in config] + [max(high, 0) for _, high, _ in config]
        y = self.op("Pad", x, self.integers(*around), value) if any(around) else x
        if not any(low < 0 or high < 0 for low, high, _ in config):
            return y
        starts = [max(-low, 0) for low, _, _ in config]
        ends = [high if high < 0 else 2**62 for _, high, _ in config]
        return self.op("Slice", y, *(self.integers(*one) for one in (
            starts, ends, range(len(config)))))  # fmt: skip

    def _concatenate(self, equation, other, sizes, *parts):
        return self.op("Concat", *parts, axis=equation.params["dimension"])

    def _stack(self, equation, other, sizes, *parts):
        axis = equation.params["axis"] % len(sizes)
        parts = [self.op("Unsqueeze", one, self.integers(axis)) for one in parts]
        return self.op("Concat", *parts, axis=axis)

    def _split(self, equation, other, sizes, x):
        parts = equation.params["sizes"]
        return list(self.tape.op_multi_out(
            "Split", [x, self.integers(*parts)], {"axis": int(equation.params["axis"])},
            num_outputs=len(parts)))  # fmt: skip

    def _iota(self, equation, other, sizes):
        axis, dtype = equation.params["dimension"], equation.params["dtype"]
        size = sizes[axis]
        if isinstance(size, Size):
            count = self.op("Squeeze", self.size(size))
            ends = (self.constant(np.int64(one)) for one in (0, 1))
            zero, one = ends
            x = self.cast(self.op("Range", zero, count, one), dtype)
        else:
            x = self.constant(np.arange(size).astype(dtype))
        x = self.reshape(x, [size if at == axis else 1 for at in range(len(sizes))])
        y = self.op("Expand", x, self.shape(sizes))
        self.narrow[id(y)] = x
        return y

    def _argmax(self, equation, other, sizes, x):
        self.refuse_batch(equation, equation.params["axes"])
        kind = {"argmax": "ArgMax", "argmin": "ArgMin"}[equation.primitive.name]
        y = self.op(kind, x, axis=equation.params["axes"][0], keepdims=0)
        return self.cast(y, equation.params["index_dtype"])

    _argmin = _argmax

    def _top_k(self, equation, other, sizes, x):
        count = self.integers(equation.params["k"])
        if equation.params["axis"] % len(sizes) != len(sizes) - 1:
            raise NotImplementedError("another axis than the last")
        values, order = self.tape.op_multi_out("TopK", [x, count], {"axis": -1}, num_outputs=2)
        return [values, self.cast(order, np.int32)]

    def _cumsum(self, equation, other, sizes, x):
        self.refuse_batch(equation, [equation.params["axis"]])
        axis = self.constant(np.int64(equation.params["axis"]))
        return self.op("CumSum", x, axis, reverse=int(equation.params["reverse"]))

    def _dynamic_slice(self, equation, other, sizes, x, *starts):
        whole = self.shape(self.own_sizes(equation.invars[0]))
        size = self.shape(sizes)
        first = self.op("Concat", *(self.reshape(self.cast(one, np.int64), [1]) for one in starts),
                        axis=0)  # fmt: skip
        first = self.op("Min", self.op("Max", first, self.integers(0)), self.op("Sub", whole, size))
        return self.op("Slice", x, first, self.op("Add", first, size))

    def _dynamic_update_slice(self, equation, other, sizes, x, part, *starts):
        first = self.op("Concat", *(self.reshape(self.cast(one, np.int32), [1]) for one in starts),
                        axis=0)  # fmt: skip
        return self.op("TFL_DYNAMIC_UPDATE_SLICE", x, part, first)  # onnx_graph.UpdateSlice

    def _dot_general(self, equation, other, sizes, x, y):
        (left, right), (left_batch, right_batch) = equation.params["dimension_numbers"]
        self.refuse_batch(equation, left)
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
        result = self.op("MatMul", x, y) if plain else (
            self.op("Einsum", x, y, equation=f"{words[0]},{words[1]}->{words[2]}")
        )  # fmt: skip
        dtype = equation.outvars[0].aval.dtype
        return result if dtype == equation.invars[0].aval.dtype else self.cast(result, dtype)

    def _conv_general_dilated(self, equation, other, sizes, x, kernel):
        params, numbers = equation.params, equation.params["dimension_numbers"]
        if params["batch_group_count"] != 1 or np.min(params["padding"], initial=0) < 0:
            raise NotImplementedError("groups of the batch, or negative padding")
        y = self.op(
            "Conv",
            self.transpose(x, list(numbers.lhs_spec)),
            self.transpose(kernel, list(numbers.rhs_spec)),
            strides=list(params["window_strides"]),
            dilations=list(params["rhs_dilation"]),
            pads=[low for low, _ in params["padding"]] + [high for _, high in params["padding"]],
            group=params["feature_group_count"],
        )
        return self.transpose(y, np.argsort(numbers.out_spec))

    def _reduce_window_max(self, equation, other, sizes, x):
        params, kind = equation.params, equation.primitive.name
        window, strides, padding = (
            params[key] for key in ("window_dimensions", "window_strides", "padding")
        )
        dilations = params["window_dilation"]
        moved = [at for at, one in enumerate(zip(window, strides, padding, strict=True))
                 if one != (1, 1, (0, 0))]  # fmt: skip
        if set(params["base_dilation"]) != {1} or not 1 <= len(moved) <= 3:
            raise NotImplementedError("this window")
        order = [at for at in range(len(sizes)) if at not in moved] + moved
        own = self.own_sizes(equation.invars[0])
        x = self.transpose(x, order)
        x = self.reshape(x, [Size(1, 0), 1, *(own[at] for at in moved)])
        attributes = {
            "kernel_shape": [window[at] for at in moved],
            "strides": [strides[at] for at in moved],
            "dilations": [dilations[at] for at in moved],
            "pads": [padding[at][end] for end in (0, 1) for at in moved],
        }
        if kind == "reduce_window_sum":
            y = self.op("AveragePool", x, count_include_pad=1, **attributes)
            y = self.op("Mul", y, self.constant(np.float32(math.prod(window))))
        elif kind == "reduce_window_min":
            y = self.op("Neg", self.op("MaxPool", self.op("Neg", x), **attributes))
        else:
            y = self.op("MaxPool", x, **attributes)
        y = self.reshape(y, [sizes[at] for at in order])
        return self.transpose(y, np.argsort(order))

    _reduce_window_sum = _reduce_window_min = _reduce_window_max


def _plain(attributes):
    """Attributes without NumPy's numbers, which JAX's parameters may be."""
    return {name: np.asarray(one).tolist() if isinstance(one, int | np.integer | list | tuple)
            else one for name, one in attributes.items()}  # fmt: skip


def _is_boolean(equation):
    return equation.invars[0].aval.dtype == np.dtype(bool)


def _dtype(dtype):
    return ir.DataType.from_numpy(np.dtype(dtype))


def _refusal(equation, error):
    layer = str(equation.source_info.name_stack)
    words = f" ({error})" if str(error) else ""
    return (
        f"{'layer ' * bool(layer)}{layer or 'the network'} ({summarize(equation.source_info)}): "
        f"{equation.primitive.name}{words} has no counterpart in an ONNX file; "
        "write it with other functions, or deploy another file"
    )
