"""Convolutions, padding and pooling that converters do not know, in terms of others.

For the functions' arguments and results see `jax_substitutes.py`.
"""

import functools
import itertools
import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

MOST_PLACES = 64  # of a window, whose elements are combined one by one


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


def reduction(equation, *inputs):
    """A reduction by any function: of all elements in turn."""
    axes = equation.params["dimensions"]
    if len(inputs) != 2 or math.prod(inputs[0].shape[axis] for axis in axes) > MOST_PLACES:
        return None
    x, start = inputs
    x = jnp.moveaxis(x, axes, range(len(axes)))
    places = itertools.product(*map(range, x.shape[: len(axes)]))
    parts = (x[place] for place in places)
    start = jnp.broadcast_to(start, x.shape[len(axes) :])
    return [functools.reduce(own_function(equation), parts, start)]


def own_function(equation):
    """The function that a reduction combines with."""
    jaxpr = equation.params["jaxpr"]
    if not isinstance(jaxpr, ClosedJaxpr):
        jaxpr = ClosedJaxpr(jaxpr, equation.params["consts"])
    function = jaxpr_as_fun(jaxpr)
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


INTEGER_POOLS = {"reduce_window_max": jnp.maximum, "reduce_window_min": jnp.minimum,
                 "reduce_window_sum": jnp.add}  # fmt: skip
