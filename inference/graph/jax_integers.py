"""Operations on integers and booleans that converters do not know, in terms of others.

For the functions' arguments and results see `jax_substitutes.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

ARITHMETIC = ("add", "sub", "mul", "neg", "max", "min", "abs", "sign", "clamp", "not",
              "select_n", "eq", "ne", "lt", "le", "gt", "ge")  # fmt: skip


ORDERED = ("max", "min", "clamp", "lt", "le", "gt", "ge")


UNSIGNED = (*ORDERED, "add", "sub", "mul", "neg", "not", "select_n", "eq", "ne")


SMALL = (jnp.uint8, jnp.int8, jnp.uint16, jnp.int16)  # the formats compute with int32


def wide(equation, *inputs, substitute=None):
    """Arithmetic of 8 and 16 bits: computed in 32, and cut off."""
    if inputs[-1].dtype == jnp.uint32 and equation.primitive.name in UNSIGNED:
        return unsigned(equation, *inputs)
    if inputs[-1].dtype not in SMALL:
        return None
    params = {key: value for key, value in equation.params.items() if key != "out_dtype"}
    inputs = [one.astype(jnp.int32) if one.dtype in SMALL else one for one in inputs]
    outputs = substitute(equation, *inputs) if substitute else None
    output = outputs[0] if outputs else equation.primitive.bind(*inputs, **params)
    return [lax.convert_element_type(output, equation.outvars[0].aval.dtype)]


def unsigned(equation, *inputs):
    """Arithmetic of uint32: that of int32 has the same bits; for an order, less 2^31."""
    name, params = equation.primitive.name, equation.params
    shift = np.int32(-(2**31) if name in ORDERED else 0)
    inputs = [one.astype(jnp.int32) + shift if one.dtype == jnp.uint32 else one for one in inputs]
    output = equation.primitive.bind(*inputs, **params)
    return [output if output.dtype == bool else (output - shift).astype(jnp.uint32)]


def divide(equation, x, y):
    """Division of integers towards 0; -1 by 0 and -x by -1, as in XLA, where runtimes fail."""
    if x.dtype in SMALL:
        return wide(equation, x, y, substitute=divide)
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
        return wide(equation, x, y, substitute=remainder)
    if jnp.issubdtype(x.dtype, jnp.integer):
        quotient = divide(equation, x, y)
        return [x - (quotient[0] if quotient else lax.div(x, y)) * y]
    positive = lax.rem(jnp.abs(x), jnp.abs(y))
    return [jnp.where(x < 0, -positive, positive)]


def integer_product(equation, x, y):
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


def exclusive_or(equation, x, y):
    """x ^ y of booleans."""
    return [x != y] if x.dtype == bool else None


POWERS = np.left_shift(1, np.arange(32)).astype(np.int32)  # the last is -2^31


def shift_left(equation, x, y):
    """x << n: a product with a power of two; 0 if n has no meaning."""
    power = jnp.take(jnp.asarray(POWERS, x.dtype), jnp.clip(y, 0, 31))
    return [jnp.where((y >= 0) & (y < 32), x * power, 0)]


def shift_right(equation, x, y):
    """x >> n: division towards minus infinity; by all 31 bits or more, the sign is left."""
    power = jnp.take(jnp.asarray(POWERS, x.dtype), jnp.clip(y, 0, 30))
    sign = jnp.where(x < 0, -1, 0).astype(x.dtype)
    return [jnp.where((y >= 0) & (y < 31), jnp.floor_divide(x, power), sign)]


def place_of_largest(equation, x):
    """argmax and argmin of booleans and small integers."""
    if x.dtype not in (*SMALL, jnp.bool_):
        return None
    return [equation.primitive.bind(x.astype(jnp.int32), **equation.params)]


def limited(equation, x):
    """Real numbers as integers of 8 or 16 bits: what is beyond them becomes the last one."""
    dtype = equation.params["new_dtype"]
    if dtype not in SMALL or not jnp.issubdtype(x.dtype, jnp.floating):
        return None
    limits = jnp.iinfo(dtype)
    return [lax.convert_element_type(jnp.clip(x, limits.min, limits.max), dtype)]
