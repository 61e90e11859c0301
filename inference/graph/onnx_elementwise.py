"""Operators of ONNX for the elementwise primitives of JAX."""

import numpy as np
import onnx_ir as ir

UNARY = {
    "abs": "Abs", "neg": "Neg", "exp": "Exp", "log": "Log", "sin": "Sin", "cos": "Cos",
    "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh",
    "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "tanh": "Tanh", "logistic": "Sigmoid",
    "sqrt": "Sqrt", "floor": "Floor", "ceil": "Ceil", "sign": "Sign", "erf": "Erf",
    "round": "Round", "copy": "Identity", "copy_p": "Identity", "stop_gradient": "Identity",
    "optimization_barrier": "Identity",
}  # fmt: skip
BINARY = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min",
    "pow": "Pow", "add_any": "Add", "eq": "Equal", "lt": "Less", "le": "LessOrEqual",
    "eq_to": "Equal",
    "gt": "Greater", "ge": "GreaterOrEqual",
}  # fmt: skip
LOGICAL = {"and": ("And", "BitwiseAnd"), "or": ("Or", "BitwiseOr"), "xor": ("Xor", "BitwiseXor")}


def _ne(graph, equation, other, sizes, x, y):
    return graph.op("Not", graph.op("Equal", x, y))


def _not(graph, equation, other, sizes, x):
    return graph.op("Not" if _is_boolean(equation) else "BitwiseNot", x)


def _rem(graph, equation, other, sizes, x, y):
    return graph.op("Mod", x, y, fmod=1)


def _is_finite(graph, equation, other, sizes, x):
    return graph.op("Not", graph.op("Or", graph.op("IsNaN", x), graph.op("IsInf", x)))


def _square(graph, equation, other, sizes, x):
    return graph.op("Mul", x, x)


def _rsqrt(graph, equation, other, sizes, x):
    return graph.op("Reciprocal", graph.op("Sqrt", x))


def _exp2(graph, equation, other, sizes, x):
    return graph.op("Pow", graph.constant(np.float32(2)), x)


def _expm1(graph, equation, other, sizes, x):
    half = graph.op("Tanh", graph.op("Mul", x, graph.constant(np.float32(0.5))))
    return graph.op("Mul", graph.op("Add", graph.op("Exp", x), graph.constant(np.float32(1))), half)


def _log1p(graph, equation, other, sizes, x):
    one = graph.constant(np.float32(1))
    more = graph.op("Add", x, one)
    ratio = graph.op("Div", x, graph.op("Sub", more, one))
    exact = graph.op("Mul", graph.op("Log", more), ratio)
    special = graph.op("Or", graph.op("Equal", more, one), graph.op("IsInf", x))
    return graph.op("Where", special, x, exact)


def _integer_pow(graph, equation, other, sizes, x):
    exponent, dtype = equation.params["y"], equation.invars[0].aval.dtype
    if exponent in (2, 3):
        square = graph.op("Mul", x, x)
        return square if exponent == 2 else graph.op("Mul", square, x)
    return graph.op("Pow", x, graph.constant(np.asarray(exponent, dtype)))


def _select_n(graph, equation, other, sizes, which, *cases):
    if _is_boolean(equation):
        return graph.op("Where", which, cases[1], cases[0])
    chosen = cases[-1]
    for at in reversed(range(len(cases) - 1)):
        here = graph.op(
            "Equal", which, graph.constant(np.asarray(at, equation.invars[0].aval.dtype))
        )
        chosen = graph.op("Where", here, cases[at], chosen)
    return chosen


def _reduce_precision(graph, equation, other, sizes, x):
    bits = equation.params["exponent_bits"], equation.params["mantissa_bits"]
    if bits == (8, 23):
        return x
    narrow = {(5, 10): ir.DataType.FLOAT16, (8, 7): ir.DataType.BFLOAT16}.get(bits)
    if narrow is None:
        raise NotImplementedError("a precision without a dtype")
    x = graph.op("Cast", x, to=int(narrow))
    return graph.op("Cast", x, to=int(ir.DataType.FLOAT))


def _atan2(graph, equation, other, sizes, y, x):
    zero, half_turn = (graph.constant(np.float32(one)) for one in (0, np.pi))
    y_below, x_below = (_is_negative(graph, one, zero) for one in (y, x))
    origin = graph.op("And", graph.op("Equal", x, zero), graph.op("Equal", y, zero))
    angle = graph.op("Atan", graph.op("Div", y, graph.op("Where", origin, half_turn, x)))
    turned = graph.op("Where", y_below, graph.op("Neg", half_turn), half_turn)
    behind = graph.op("Where", origin, turned, graph.op("Add", angle, turned))
    return graph.op("Where", x_below, behind, angle)


def _is_negative(graph, x, zero):
    """Whether numbers are below 0, or -0."""
    inverse = graph.op("Less", graph.op("Reciprocal", x), zero)
    return graph.op("Or", graph.op("Less", x, zero), inverse)


def _shift_right_logical(graph, equation, other, sizes, x, y):
    dtype = equation.outvars[0].aval.dtype
    if dtype.itemsize != 4:
        raise NotImplementedError(f"of {dtype}")
    x, y = (graph.cast(one, np.uint32) for one in (x, y))
    return graph.cast(graph.op("BitShift", x, y, direction="RIGHT"), dtype)


def _clamp(graph, equation, other, sizes, least, x, most):
    return graph.op("Min", graph.op("Max", x, least), most)


def _convert_element_type(graph, equation, other, sizes, x):
    return graph.cast(x, equation.params["new_dtype"])


def _is_boolean(equation):
    return equation.invars[0].aval.dtype == np.dtype(bool)


def _unary(graph, equation, other, sizes, x):
    return graph.op(UNARY[equation.primitive.name], x)


def _binary(graph, equation, other, sizes, x, y):
    return graph.op(BINARY[equation.primitive.name], x, y)


def _logical(graph, equation, other, sizes, x, y):
    return graph.op(LOGICAL[equation.primitive.name][not _is_boolean(equation)], x, y)


BROADCASTING = {  # the inputs of these are expanded to one another's shape
    "ne": _ne, "rem": _rem, "select_n": _select_n, "clamp": _clamp, "atan2": _atan2,
    "shift_right_logical": _shift_right_logical,
} | dict.fromkeys(BINARY, _binary) | dict.fromkeys(LOGICAL, _logical)  # fmt: skip
OPERATORS = BROADCASTING | dict.fromkeys(UNARY, _unary) | {
    "not": _not, "is_finite": _is_finite, "square": _square, "rsqrt": _rsqrt, "exp2": _exp2,
    "expm1": _expm1, "log1p": _log1p, "integer_pow": _integer_pow,
    "reduce_precision": _reduce_precision, "convert_element_type": _convert_element_type,
}  # fmt: skip
