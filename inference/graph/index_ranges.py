"""Finds the integers that a network takes as indices: a token has a row in a table, or no meaning.

JAX's own answers to an index without a row are NaN, the last row, or anything at all; the runtimes
raise an error. So a file can be compared with JAX only where there are rows.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

SAME = {"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "copy", "slice",
        "rev", "convert_element_type", "select_n", "concatenate", "pad"}  # fmt: skip


class Index(NamedTuple):
    """A value that is an input plus a number, perhaps limited from below or above."""

    input: int
    offset: int = 0
    low: bool = False  # whether it is limited by the network itself
    high: bool = False


def index_ranges(function, *inputs):
    """Returns (lowest, highest) for each input that is used as an index, and None for others.

    Args:
        function: `(*inputs) -> outputs`.
        inputs: arrays, or their shapes and dtypes as jax.ShapeDtypeStruct.
    """
    closed = jax.make_jaxpr(function)(*inputs)
    ranges = {}
    known = {variable: [Index(at)] for at, variable in enumerate(closed.jaxpr.invars)}
    _walk(closed.jaxpr, known, ranges)
    return [ranges.get(at) for at in range(len(inputs))]


def _walk(jaxpr, known, ranges):
    """Follows the inputs through a jaxpr; `known` has the Indices of each variable, by columns."""
    for equation in jaxpr.eqns:
        name, sources = equation.primitive.name, [_known(known, one) for one in equation.invars]
        if not any(sources):
            continue
        for inner, taken in _inner(equation, sources):
            named = dict(zip(inner.invars, taken, strict=True))
            _walk(inner, named, ranges)
            if len(inner.outvars) == len(equation.outvars) and name not in ("scan", "while"):
                results = (_known(named, one) for one in inner.outvars)
                known.update(zip(equation.outvars, results, strict=True))
        if name in ("gather", "scatter", "scatter-add", "scatter-mul"):
            _note(equation, sources[1], ranges)
        elif name in SAME and len(equation.outvars) == 1 and equation.outvars[0] not in known:
            known[equation.outvars[0]] = _same(equation, name, sources)
        elif name in ("add", "sub", "max", "min", "clamp"):
            known[equation.outvars[0]] = _shifted(equation, name, sources)


def _known(known, atom):
    return [] if isinstance(atom, Literal) else known.get(atom, [])


def _inner(equation, sources):
    """Yields the jaxprs inside an equation whose inputs are its own, with what is known of them."""
    if equation.primitive.name == "while":  # of its steps the first
        yield equation.params["body_jaxpr"].jaxpr, sources[equation.params["cond_nconsts"] :]
        return
    for value in equation.params.values():
        for one in value if isinstance(value, tuple) else (value,):
            inner = one.jaxpr if isinstance(one, ClosedJaxpr) else one
            if isinstance(inner, Jaxpr):
                taken = sources[len(sources) - len(inner.invars) :]  # a branch's index comes first
                if len(taken) == len(inner.invars):
                    yield inner, taken


def _same(equation, name, sources):
    """What an operation that moves elements returns; a concatenation keeps its columns apart."""
    if name == "select_n":  # `where(x < 0, x + rows, x)`: the one without an offset
        found = [one for source in sources[1:] for one in source]
        return sorted(found, key=lambda one: abs(one.offset))[:1]
    if name == "concatenate":
        last = equation.params["dimension"] == equation.outvars[0].aval.ndim - 1
        single = all(one.aval.shape[-1] == 1 for one in equation.invars)
        if last and single:
            return [source[0] if source else None for source in sources]
        return [one for source in sources for one in source][:1]
    return sources[0]


def _shifted(equation, name, sources):
    """What adding a number, or limiting, leaves of an Index; [] if it is one no longer."""
    if name == "clamp":
        return [one._replace(low=True, high=True) for one in sources[1] if one]
    numbers = [_number(atom) for atom in equation.invars]
    first = 0 if sources[0] else 1
    number, indices = numbers[1 - first], [one for one in sources[first] if one]
    if name in ("max", "min"):
        return [one._replace(**{"low" if name == "max" else "high": True}) for one in indices]
    if number is None or (name == "sub" and first == 1):
        return []
    number = -number if name == "sub" else number
    return [one._replace(offset=one.offset + number) for one in indices]


def _note(equation, indices, ranges):
    """Limits the ranges of the inputs that a gather or a scatter takes as indices."""
    operand, numbers = equation.invars[0].aval, equation.params["dimension_numbers"]
    axes = getattr(numbers, "start_index_map", None) or numbers.scatter_dims_to_operand_dims
    if equation.params["mode"] == jax.lax.GatherScatterMode.CLIP:
        return
    if len(indices) == 1:
        indices = indices * len(axes)
    sizes = equation.params.get("slice_sizes", [1] * operand.ndim)
    for one, axis in zip(indices, axes, strict=False):
        if one is None:
            continue
        bounds = np.iinfo(np.int64)
        low, high = ranges.get(one.input, (bounds.min, bounds.max))
        low = low if one.low else max(low, -one.offset)
        high = high if one.high else min(high, operand.shape[axis] - sizes[axis] - one.offset)
        ranges[one.input] = low, high


def _number(atom):
    value = atom.val if isinstance(atom, Literal) else None
    return int(value) if value is not None and np.ndim(value) == 0 else None
