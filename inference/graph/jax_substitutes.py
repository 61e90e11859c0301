"""Primitives of JAX that converters do not know, or translate wrongly, in terms of others.

Each function takes the equation and its inputs, and returns the list of its outputs; or None, where
the primitive itself is right.
"""

import jax.numpy as jnp
from jax import lax


def erf(x):
    """Computes the error function, to 3e-7 (Abramowitz and Stegun 1964, formula 7.1.26)."""
    t = 1 / (1 + 0.3275911 * jnp.abs(x))
    series = 0.0
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + coefficient) * t
    return jnp.sign(x) * (1 - series * jnp.exp(-x * x))


def remainder(equation, x, y):
    """The remainder of integers with the sign of x: the formats' own have the sign of y, or any."""
    if not jnp.issubdtype(x.dtype, jnp.integer):
        return None
    return [x - lax.div(x, y) * y]


def transposed_convolution(equation, x, kernel):
    """A convolution of x with zeros between its pixels: first inserts the zeros."""
    params = equation.params
    if set(params["lhs_dilation"]) == {1}:
        return None
    numbers = params["dimension_numbers"]
    widths = [(0, 0, 0)] * x.ndim
    for axis, (low, high), dilation in zip(
        numbers.lhs_spec[2:], params["padding"], params["lhs_dilation"], strict=True
    ):
        widths[axis] = (low, high, 0)
        x = _dilated(x, axis, dilation)
    x = lax.pad(x, jnp.zeros((), x.dtype), widths)
    plain = {"padding": "VALID", "lhs_dilation": (1,) * len(params["lhs_dilation"])}
    return [lax.conv_general_dilated(x, kernel, **params | plain)]


def _dilated(x, axis, step):
    """Inserts zeros between the elements of an axis; ONNX cannot pad inside an array."""
    if step == 1:
        return x
    widths = [(0, 0)] * (x.ndim + 1)
    widths[axis + 1] = (0, step - 1)
    size = x.shape[axis] * step
    x = jnp.pad(jnp.expand_dims(x, axis + 1), widths)
    x = x.reshape(*x.shape[:axis], size, *x.shape[axis + 2 :])
    return lax.slice_in_dim(x, 0, size - step + 1, axis=axis)


SUBSTITUTES = {
    "erf": lambda equation, x: [erf(x)],
    "erfc": lambda equation, x: [1 - erf(x)],
    "rem": remainder,
    "conv_general_dilated": transposed_convolution,
}
