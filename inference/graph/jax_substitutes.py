"""Primitives of JAX that converters do not know, or translate wrongly, in terms of others.

Each function takes the equation and its inputs, and returns the list of its outputs; or None, where
the primitive itself is right.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from inference.graph.jax_indices import gather, scatter

ARITHMETIC = ("add", "sub", "mul", "neg", "max", "min", "abs", "sign", "clamp", "not",
              "select_n", "eq", "ne", "lt", "le", "gt", "ge")  # fmt: skip
ORDERED = ("max", "min", "clamp", "lt", "le", "gt", "ge")
UNSIGNED = (*ORDERED, "add", "sub", "mul", "neg", "not", "select_n", "eq", "ne")
SMALL = (jnp.uint8, jnp.int8, jnp.uint16, jnp.int16)  # the formats compute with int32


def erf(x):
    """Computes the error function, to 3e-7 (Abramowitz and Stegun 1964, formula 7.1.26)."""
    t = 1 / (1 + 0.3275911 * jnp.abs(x))
    series = 0.0
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + coefficient) * t
    return jnp.sign(x) * (1 - series * jnp.exp(-x * x))


def wide(equation, *inputs):
    """Arithmetic of 8 and 16 bits: computed in 32, and cut off."""
    if inputs[-1].dtype == jnp.uint32 and equation.primitive.name in UNSIGNED:
        return unsigned(equation, *inputs)
    if inputs[-1].dtype not in SMALL:
        return None
    params = {key: value for key, value in equation.params.items() if key != "out_dtype"}
    inputs = [one.astype(jnp.int32) if one.dtype in SMALL else one for one in inputs]
    name = equation.primitive.name
    outputs = SUBSTITUTES[name](equation, *inputs) if SUBSTITUTES[name] is not wide else None
    output = outputs[0] if outputs else equation.primitive.bind(*inputs, **params)
    return [lax.convert_element_type(output, equation.outvars[0].aval.dtype)]


def unsigned(equation, *inputs):
    """Arithmetic of uint32: that of int32 has the same bits; for an order, less 2^31."""
    name, params = equation.primitive.name, equation.params
    shift = np.int32(-(2**31) if name in ORDERED else 0)
    inputs = [one.astype(jnp.int32) + shift if one.dtype == jnp.uint32 else one for one in inputs]
    output = equation.primitive.bind(*inputs, **params)
    return [output if output.dtype == bool else (output - shift).astype(jnp.uint32)]


def less(x, y):
    """x < y in the order of a sort, where NaN is the largest."""
    return (x < y) | ((y != y) & (x == x))


def divide(equation, x, y):
    """Division of integers towards 0; -1 by 0 and -x by -1, as in XLA, where runtimes fail."""
    if x.dtype in SMALL:
        return wide(equation, x, y)
    if x.dtype == jnp.uint32 and not isinstance(y, jax.core.Tracer):
        return _shifted(x, np.unique(y).tolist())
    if not jnp.issubdtype(x.dtype, jnp.integer) or not isinstance(y, jax.core.Tracer):
        return None
    if jnp.issubdtype(x.dtype, jnp.unsignedinteger):
        quotient = lax.div(x, jnp.where(y == 0, 1, y))
        return [jnp.where(y == 0, jnp.asarray(np.iinfo(x.dtype).max, x.dtype), quotient)]
    plain = (y != 0) & (y != -1)
    quotient = lax.div(x, jnp.where(plain, y, 1))
    return [jnp.where(plain, quotient, jnp.where(y == 0, jnp.full_like(x, -1), -x))]


def _shifted(x, divisors):
    """x / 2^n of uint32, as searchsorted has it, in int32; None if the divisor is another."""
    (divisor, *others), x = divisors, x.astype(jnp.int32)
    if others or divisor < 2 or divisor & (divisor - 1):
        return None
    if divisor == 2**31:
        return [(x < 0).astype(jnp.uint32)]
    upper = np.uint32(2**32 // divisor).astype(np.int32)
    return [(jnp.floor_divide(x, divisor) + jnp.where(x < 0, upper, 0)).astype(jnp.uint32)]


def remainder(equation, x, y):
    """The remainder with the sign of x: the formats' own have the sign of y, or any."""
    if x.dtype in SMALL:
        return wide(equation, x, y)
    if jnp.issubdtype(x.dtype, jnp.integer):
        quotient = divide(equation, x, y)
        return [x - (quotient[0] if quotient else lax.div(x, y)) * y]
    positive = lax.rem(jnp.abs(x), jnp.abs(y))
    return [jnp.where(x < 0, -positive, positive)]


def product(equation, x, y):
    """A product of matrices: the converter has none of integers, and forgets to transpose a
    first matrix that the network computes."""
    (left, right), (batched, _) = equation.params["dimension_numbers"]
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return [_integer_product(equation, x, y)]
    if batched or tuple(left) != (0,) or tuple(right) != (y.ndim - 1,):
        return None
    swapped = lax.dot_general(y, x, ((right, left), ((), ())), **_precision(equation))
    return [lax.transpose(swapped, [*range(y.ndim - 1, swapped.ndim), *range(y.ndim - 1)])]


def _integer_product(equation, x, y):
    """A product of integers or booleans, as a sum over products of all pairs."""
    (left, right), (left_batch, right_batch) = equation.params["dimension_numbers"]
    dtype = equation.outvars[0].aval.dtype
    free = [
        [axis for axis in range(one.ndim) if axis not in (*batch, *inside)]
        for one, batch, inside in ((x, left_batch, left), (y, right_batch, right))
    ]
    x, y = (one.astype(jnp.int32) for one in (x, y))
    x = lax.transpose(x, [*left_batch, *free[0], *left])
    y = lax.transpose(y, [*right_batch, *free[1], *right])
    batch = len(left_batch)
    x = lax.expand_dims(x, range(batch + len(free[0]), batch + len(free[0]) + len(free[1])))
    y = lax.expand_dims(y, range(batch, batch + len(free[0])))
    return jnp.sum(x * y, range(x.ndim - len(left), x.ndim)).astype(dtype)


def _precision(equation):
    return {key: equation.params[key] for key in ("precision", "preferred_element_type")}


def cube_root(equation, x):
    """The cube root of any real number: a power takes positive ones."""
    return [jnp.sign(x) * jnp.power(jnp.abs(x), 1 / 3)]


def exclusive_or(equation, x, y):
    """x ^ y of booleans."""
    return [x != y] if x.dtype == bool else None


MOST_PLACES = 64  # of a window, whose elements are combined one by one
POWERS = np.left_shift(1, np.arange(32)).astype(np.int32)  # the last is -2^31


def shift_left(equation, x, y):
    """x << n: a product with a power of two; 0 if n has no meaning."""
    power = jnp.take(jnp.asarray(POWERS, x.dtype), y, mode="clip")
    return [jnp.where((y >= 0) & (y < 32), x * power, 0)]


def shift_right(equation, x, y):
    """x >> n: division towards minus infinity; by all 31 bits or more, the sign is left."""
    power = jnp.take(jnp.asarray(POWERS, x.dtype), jnp.clip(y, 0, 30))
    sign = jnp.where(x < 0, -1, 0).astype(x.dtype)
    return [jnp.where((y >= 0) & (y < 31), jnp.floor_divide(x, power), sign)]


def sort(equation, *operands):
    """Sorting as top_k, which both formats have, of all elements: by the last key first."""
    axis, keys = equation.params["dimension"], equation.params["num_keys"]
    rows = [jnp.moveaxis(one, axis, -1) for one in operands]
    if any(one.dtype == jnp.uint32 for one in rows[:keys]):
        return None
    for at in reversed(range(keys)):
        key = rows[at] if rows[at].dtype == jnp.float32 else rows[at].astype(jnp.int32)
        backwards = jnp.negative if key.dtype == jnp.float32 else jnp.bitwise_not
        values, order = largest(backwards(key), key.shape[-1])
        values = backwards(values).astype(rows[at].dtype)
        rows = [values if to == at else _rows_at(one, order) for to, one in enumerate(rows)]
    return [jnp.moveaxis(one, -1, axis) for one in rows]


def unroll(equation, *inputs):
    """The steps of a scan, one after the other."""
    params, first = equation.params, equation.params["num_consts"]
    step, last = jaxpr_as_fun(params["jaxpr"]), first + params["num_carry"]
    state, steps, outputs = list(inputs[first:last]), range(params["length"]), []
    for at in reversed(steps) if params["reverse"] else steps:
        found = step(*inputs[:first], *state, *(one[at] for one in inputs[last:]))
        state = found[: last - first]
        outputs.append(found[last - first :])
    if params["reverse"]:
        outputs.reverse()
    return [*state, *(jnp.stack(one) for one in zip(*outputs, strict=True))]


def largest(x, count):
    """lax.top_k, whose order is used in any case: the converter needs both of its outputs."""
    dtype = x.dtype
    x = x.astype(jnp.int32) if dtype in (*SMALL, jnp.bool_) else x
    values, order = lax.top_k(x, count)
    return jnp.where(order >= 0, values, 0).astype(dtype), order


def accumulate(combine, neutral):
    """Returns the substitute of a cumulative operation: log2(n) steps, over 1, 2, 4, ... places."""

    def accumulate(equation, x):
        axis, reverse = equation.params["axis"], equation.params["reverse"]
        size, start = x.shape[axis], jnp.asarray(neutral(x.dtype), x.dtype)
        for step in itertools.takewhile(lambda step: step < size, (2**n for n in range(64))):
            ends = (0, size - step), (step, size)
            kept = lax.slice_in_dim(x, *ends[reverse], axis=axis)
            widths = [(0, 0, 0)] * x.ndim
            widths[axis] = (0, step, 0) if reverse else (step, 0, 0)
            x = combine(x, lax.pad(kept, start, widths))
        return [x]

    return accumulate


def reverse_sum(equation, x):
    """A sum from the end."""
    if not equation.params["reverse"]:
        return None
    axis = equation.params["axis"]
    return [lax.rev(lax.cumsum(lax.rev(x, (axis,)), axis), (axis,))]


def convolution(equation, x, kernel):
    """A convolution of x with zeros between its pixels, or cropped: x is padded first."""
    params = equation.params
    if set(params["lhs_dilation"]) == {1} and np.min(params["padding"], initial=0) >= 0:
        return None
    widths = [(0, 0, 0)] * x.ndim
    for axis, (low, high), dilation in zip(
        params["dimension_numbers"].lhs_spec[2:], params["padding"], params["lhs_dilation"],
        strict=True,
    ):  # fmt: skip
        widths[axis] = (low, high, dilation - 1)
    plain = {"padding": "VALID", "lhs_dilation": (1,) * len(params["lhs_dilation"])}
    return [lax.conv_general_dilated(_padded(x, 0, widths), kernel, **params | plain)]


def pad(equation, x, value):
    """Padding between elements, which ONNX has not."""
    widths = equation.params["padding_config"]
    return [_padded(x, value, widths)] if any(inside for _, _, inside in widths) else None


def window(neutral):
    """Returns the substitute of a pooling of x with elements between its own, or over many axes."""

    def window(equation, x):
        params = {key: list(one) for key, one in equation.params.items()}
        if jnp.issubdtype(x.dtype, jnp.integer):
            function = INTEGER_POOLS[equation.primitive.name]
            return windows(lambda _: function)(equation, x, neutral(x.dtype))
        spread, moved = params["base_dilation"], [one > 1 for one in params["window_dimensions"]]
        if set(spread) == {1} and sum(moved) < 4:
            return None
        widths = [(*ends, one - 1) for ends, one in zip(params["padding"], spread, strict=True)]
        x = _padded(x, neutral(x.dtype), widths)
        for axis in np.flatnonzero(moved):  # one axis after the other
            own = {key: [1] * x.ndim for key in params} | {"padding": [(0, 0)] * x.ndim}
            for key in ("window_dimensions", "window_strides", "window_dilation"):
                own[key][axis] = params[key][axis]
            (x,) = [equation.primitive.bind(x, **{key: tuple(one) for key, one in own.items()})]
        return [x]

    return window


def windows(combine):
    """Returns the substitute of a pooling by any function: of all elements of the windows in turn.

    Args:
        combine: `equation -> (x, y) -> one`.
    """

    def windows(equation, x, start):
        params = equation.params
        sizes, spread = params["window_dimensions"], params["base_dilation"]
        if math.prod(sizes) > MOST_PLACES:
            return None
        widths = [(*ends, one - 1) for ends, one in zip(params["padding"], spread, strict=True)]
        x, strides = _padded(x, start, widths), params["window_strides"]
        ends = [
            (count - 1) * stride + 1
            for count, stride in zip(equation.outvars[0].aval.shape, strides, strict=True)
        ]
        parts = []
        for place in itertools.product(*map(range, sizes)):
            first = [at * step for at, step in zip(place, params["window_dilation"], strict=True)]
            limits = [at + end for at, end in zip(first, ends, strict=True)]
            parts.append(lax.slice(x, first, limits, strides))
        return [functools.reduce(combine(equation), parts)]

    return windows


def _own_function(equation):
    """The function that a reduction combines with."""
    function = jaxpr_as_fun(ClosedJaxpr(equation.params["jaxpr"], equation.params["consts"]))
    return lambda x, y: function(x, y)[0]


def _padded(x, value, widths):
    """lax.pad in terms of padding around an array."""
    value = jnp.asarray(value, x.dtype)
    for axis, (_, _, inside) in enumerate(widths):
        if inside:
            between = [(0, 0, 0)] * (x.ndim + 1)
            between[axis + 1] = (0, inside, 0)
            size, shape = x.shape[axis] * (inside + 1), x.shape
            x = lax.pad(jnp.expand_dims(x, axis + 1), value, between)
            x = x.reshape(*shape[:axis], size, *shape[axis + 1 :])
            x = lax.slice_in_dim(x, 0, size - inside, axis=axis)
    return lax.pad(x, value, [(low, high, 0) for low, high, _ in widths])


def _rows_at(rows, order):
    """rows[..., order], where the leading axes of both belong together."""
    shape = order.shape
    coordinates = [lax.broadcasted_iota(jnp.int32, shape, at) for at in range(len(shape) - 1)]
    axes = tuple(range(len(shape)))
    return lax.gather(
        rows,
        jnp.stack([*coordinates, order], -1),
        lax.GatherDimensionNumbers((), axes, axes),
        (1,) * len(shape),
        mode="promise_in_bounds",
    )


def _lowest(dtype):
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


def _highest(dtype):
    return jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max


def round_away(equation, x):
    """Rounds halves away from 0; to the even number is what the formats have."""
    if equation.params["rounding_method"] != lax.RoundingMethod.AWAY_FROM_ZERO:
        return None
    whole = jnp.floor(jnp.abs(x))
    return [jnp.sign(x) * (whole + (jnp.abs(x) - whole >= 0.5).astype(x.dtype))]


def top_k(equation, x):
    """The largest elements along an axis."""
    axis = equation.params["axis"]
    found = largest(jnp.moveaxis(x, axis, -1), equation.params["k"])
    return [jnp.moveaxis(one, -1, axis) for one in found]


def place_of_largest(equation, x):
    """argmax and argmin of booleans and small integers."""
    if x.dtype not in (*SMALL, jnp.bool_):
        return None
    return [equation.primitive.bind(x.astype(jnp.int32), **equation.params)]


def half(equation, x):
    """Rounding to half precision."""
    bits = equation.params["exponent_bits"], equation.params["mantissa_bits"]
    return [x.astype(jnp.float16).astype(x.dtype)] if bits == (5, 10) else None


INTEGER_POOLS = {"reduce_window_max": jnp.maximum, "reduce_window_min": jnp.minimum,
                 "reduce_window_sum": jnp.add}  # fmt: skip
SUBSTITUTES = {
    "round": round_away,
    "top_k": top_k,
    "argmax": place_of_largest,
    "argmin": place_of_largest,
    "erf": lambda equation, x: [erf(x)],
    "erfc": lambda equation, x: [1 - erf(x)],
    "div": divide,
    "rem": remainder,
    "cbrt": cube_root,
    "dot_general": product,
    "xor": exclusive_or,
    "shift_left": shift_left,
    "shift_right_arithmetic": shift_right,
    "sort": sort,
    "cumsum": reverse_sum,
    "cumprod": accumulate(jnp.multiply, lambda dtype: 1),
    "cummax": accumulate(jnp.maximum, _lowest),
    "cummin": accumulate(jnp.minimum, _highest),
    "cumlogsumexp": accumulate(jnp.logaddexp, _lowest),
    "gather": gather,
    "conv_general_dilated": convolution,
    "pad": pad,
    "reduce_window_max": window(_lowest),
    "reduce_window_min": window(_highest),
    "reduce_window_sum": window(lambda dtype: 0),
    "reduce_precision": half,
    "lt_to": lambda equation, x, y: [less(x, y)],
    "le_to": lambda equation, x, y: [~less(y, x)],
    "reduce_window": windows(_own_function),
} | dict.fromkeys(ARITHMETIC, wide)

TFLITE_ONLY = (
    "erf",
    "xor",
    "cumsum",
    "top_k",
    "reduce_precision",
    "dot_general",
)  # ONNX has these itself
FOR_ONNX = {name: one for name, one in SUBSTITUTES.items() if name not in TFLITE_ONLY}
FOR_ONNX["erfc"] = lambda equation, x: [1 - lax.erf(x)]
FOR_ONNX["rem"] = lambda equation, x, y: (
    None if jnp.issubdtype(x.dtype, jnp.floating) else remainder(equation, x, y)
)
FOR_ONNX |= dict.fromkeys(
    ("scatter", "scatter-add", "scatter-mul", "scatter-min", "scatter-max"), scatter
)
