"""Primitives of JAX that converters do not know, or translate wrongly, in terms of others.

Each function takes the equation and its inputs, and returns the list of its outputs; or None, where
the primitive itself is right.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import jaxpr_as_fun

from inference.graph import INFINITE
from inference.graph.jax_indices import gather, scatter
from inference.graph.jax_integers import (
    ARITHMETIC,
    SMALL,
    divide,
    exclusive_or,
    integer_product,
    limited,
    place_of_largest,
    remainder,
    shift_left,
    shift_right,
    wide,
)  # fmt: skip
from inference.graph.jax_windows import convolution, own_function, pad, reduction, window, windows


def erf(x):
    """Computes the error function, to 3e-7 (Abramowitz and Stegun 1964, formula 7.1.26)."""
    t = 1 / (1 + 0.3275911 * jnp.abs(x))
    series = 0.0
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + coefficient) * t
    return jnp.sign(x) * (1 - series * jnp.exp(-x * x))


def less(x, y):
    """x < y in the order of a sort, where NaN is the largest."""
    return (x < y) | ((y != y) & (x == x))


def product(equation, x, y):
    """A product of matrices: the converter has none of integers, and forgets to transpose a
    first matrix that the network computes."""
    (left, right), (batched, _) = equation.params["dimension_numbers"]
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return [integer_product(equation, x, y)]
    if batched or tuple(left) != (0,) or tuple(right) != (y.ndim - 1,):
        return None
    swapped = lax.dot_general(y, x, ((right, left), ((), ())), **_precision(equation))
    return [lax.transpose(swapped, [*range(y.ndim - 1, swapped.ndim), *range(y.ndim - 1)])]


def _precision(equation):
    return {key: equation.params[key] for key in ("precision", "preferred_element_type")}


def extreme(equation, x, y):
    """The larger or smaller of two; with the infinity that changes nothing, as in a softmax, x."""
    end = -1 if equation.primitive.name == "max" else 1
    ends, shape = np.float32([end * np.inf, end * INFINITE]), equation.outvars[0].aval.shape
    for one, other in ((x, y), (y, x)):
        number = None if isinstance(one, jax.core.Tracer) or np.ndim(one) else np.asarray(one)
        if number is not None and number in ends and other.shape == shape:
            return [other]
    return wide(equation, x, y)


def cube_root(equation, x):
    """The cube root of any real number: a power takes positive ones."""
    return [jnp.sign(x) * jnp.power(jnp.abs(x), 1 / 3)]


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


def half(equation, x):
    """Rounding to half precision."""
    bits = equation.params["exponent_bits"], equation.params["mantissa_bits"]
    return [x.astype(jnp.float16).astype(x.dtype)] if bits == (5, 10) else None


SUBSTITUTES = (
    {
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
        "convert_element_type": limited,
        "lt_to": lambda equation, x, y: [less(x, y)],
        "le_to": lambda equation, x, y: [~less(y, x)],
        "reduce": reduction,
        "reduce_window": windows(own_function),
    }
    | dict.fromkeys(ARITHMETIC, wide)
    | {"max": extreme, "min": extreme}
)

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
