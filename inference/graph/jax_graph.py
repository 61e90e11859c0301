"""Rewrites of the jaxpr: primitives that TensorFlow's converter cannot read are replaced.

A network is traced to a jaxpr, JAX's list of primitive operations. The converter cannot read a few
of them, or converts them wrongly. Where other primitives compute the same, they are substituted
while the jaxpr is evaluated again. A primitive without a substitute is refused with the name of its
layer.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.extend.source_info_util import current_name_stack, summarize, user_context

from inference.graph import EXACT_GELU, INFINITE
from inference.graph.jax_substitutes import SUBSTITUTES
from utils import UserError

PRODUCTS = ("dot_general", "conv_general_dilated")
INLINED = ("jit", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint")  # plain calls

# Primitives without a counterpart in TFLite, and what to do instead.
REFUSED = {
    "fft": "transform the inputs before they reach the network",
    "cholesky": "compute the factor once and keep it as an array",
    "lu": "compute the inverse once and keep it as an array",
    "triangular_solve": "compute the inverse once and keep it as an array",
    "eigh": "compute the decomposition once and keep it as an array",
    "qr": "compute the decomposition once and keep it as an array",
    "svd": "compute the decomposition once and keep it as an array",
    "erf_inv": "use a bounded activation such as tanh in its place",
    "lgamma": "leave it to the loss, which is not exported",
    "digamma": "leave it to the loss, which is not exported",
    "random_bits": "draw at random only if train, or take the noise as an input",
    "threefry2x32": "draw at random only if train, or take the noise as an input",
    "pure_callback": "compute it with jax.numpy",
    "io_callback": "leave it out, or do it only if train",
    "debug_callback": "leave jax.debug.print out",
    "scatter_apply": "write x.at[i].set(f(x[i])) in place of x.at[i].apply(f)",
}
# What one format or neither has, and what to write instead.
OTHERWISE = "write it with other functions, or deploy another file"
SIGN = "write x < 0 for jnp.signbit(x), and jnp.where(y < 0, -abs(x), abs(x)) for jnp.copysign"
BITS = "write // and % by powers of 2 for operations on bits, or deploy the .onnx file"
ADVICE = {
    "bitcast_convert_type": SIGN, "and": BITS, "or": BITS, "xor": BITS, "not": BITS,
    "BitwiseAnd": BITS, "BitwiseOr": BITS, "BitwiseXor": BITS, "Invert": BITS,
    "shift_right_logical": BITS,
    "div": "divide numbers in int32 or float32",
    "population_count": "look the counts up in a table of 256 bytes",
    "nextafter": "add a small number that you name",
    "custom_linear_solve": "compute the inverse once and keep it as an array",
    "random_seed": REFUSED["random_bits"], "random_wrap": REFUSED["random_bits"],
    "reduce_precision": "convert it to jnp.float16 or jnp.bfloat16 and back",
    "reduce": "write it with sum, prod, max, min, any or all",
    "reduce_window": "write it with windows of max, min or add",
    "conv_general_dilated": "leave batch_group_count at 1",
    "sort": "sort by one key at a time, or by float32 or int32 keys",
    "pad": "pad arrays of at most five dimensions: merge two axes by reshape before",
}  # fmt: skip


def exportable(function, *inputs, substitutes=SUBSTITUTES, refused=REFUSED):
    """Returns `function` with every operation rewritten that the converter cannot take.

    Args:
        function: `(*inputs) -> tuple of outputs`.
        inputs: arrays, or their shapes and dtypes as jax.ShapeDtypeStruct.
        substitutes: {primitive: function of an equation and its inputs}.
        refused: {primitive: what to do instead}.

    Raises:
        UserError: it uses what no converter takes; names the layer, its line and a remedy.
    """
    closed = jax.make_jaxpr(function)(*inputs)
    faults = list(dict.fromkeys(_refusals(closed.jaxpr, refused)))
    if faults:
        raise UserError("\n".join(faults))
    ends = _ends(closed.jaxpr)
    return lambda *inputs: tuple(_run(closed.jaxpr, closed.consts, inputs, substitutes, ends))


def operations(jaxpr, layer="", line=""):
    """Yields every operation of a jaxpr, including those of loops and inner functions.

    Yields:
        (equation, layer, line): line as "model/model.py:42:9 (network)"; both "" if unknown.
    """
    for equation in jaxpr.eqns:
        own = str(equation.source_info.name_stack)
        where = "/".join(part for part in (layer, own) if part)
        here = summarize(equation.source_info) or line
        yield equation, where, here
        for inner in _inner(equation).values():
            for closed in inner if isinstance(inner, tuple) else (inner,):
                yield from operations(closed.jaxpr, where, here)


def _refusals(jaxpr, refused):
    for equation, layer, line in operations(jaxpr):
        if named(equation) in refused:
            yield refusal(equation, "a TFLite file", layer=layer, line=line)
        elif equation.primitive.name in PRODUCTS and _is_half(equation.invars[0].aval.dtype):
            dtype = equation.invars[0].aval.dtype
            yield (
                f"{'layer ' * bool(layer)}{layer or 'the network'} ({line}): "
                f"{equation.primitive.name} of {dtype}, and files compute in float32; convert both "
                "to jnp.float32 before (in Flax and Haiku: dtype=jnp.float32). Their parameters "
                f"may stay {dtype}"
            )


def _is_half(dtype):
    return jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize == 2


def refusal(equation, file, reason="", layer="", line=""):
    """Returns why an operation has no counterpart in a file: its layer, line, and a remedy."""
    layer = layer or str(equation.source_info.name_stack)
    name, reason = named(equation), f" ({reason})" * bool(reason)
    return (
        f"{'layer ' * bool(layer)}{layer or 'the network'} "
        f"({line or summarize(equation.source_info)}): {name}{reason} has no counterpart in "
        f"{file}; {REFUSED.get(name) or ADVICE.get(name, OTHERWISE)}"
    )


def named(equation):
    """The name of an equation's primitive; of a scatter with a function, "scatter_apply"."""
    name = equation.primitive.name
    combines = name == "scatter" and equation.params["update_jaxpr"]
    return "scatter_apply" if combines and combines.eqns else name


def _ends(jaxpr):
    """The variables that are a jaxpr's outputs, directly or through copies."""
    ends = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    for equation in reversed(jaxpr.eqns):
        if equation.primitive.name == "copy" and equation.outvars[0] in ends:
            ends.add(equation.invars[0])
    return ends


def _run(jaxpr, consts, inputs, substitutes, unnamed=(), outer=None):
    """Evaluates a jaxpr as JAX does, with substitutes for some primitives.

    Args:
        jaxpr, consts, inputs: as jax.core.eval_jaxpr has them.
        substitutes: {primitive: function of an equation and its inputs}.
        outer: the traceback of the call that this is the inside of.
        unnamed: variables that become the file's outputs, where a scope cannot mark a GELU.
    """
    for_tflite = "erf" in substitutes
    consts = map(_without_infinities, consts) if for_tflite else consts
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))
    makers = {}

    def value(atom):
        if not isinstance(atom, Literal):
            return values[atom]
        return _without_infinities(atom.val) if for_tflite else atom.val

    for equation in jaxpr.eqns:
        source, makers[equation.outvars[0]] = equation.source_info, equation
        # Each operation keeps the name of its layer and its line, for the converter's messages.
        scope = current_name_stack() + source.name_stack
        where = source.traceback if summarize(source) else outer or source.traceback
        with user_context(where, name_stack=scope):
            activated = _exact_gelu(equation, makers) if for_tflite else None
            if activated is None or equation.outvars[0] in unnamed:
                arrays = [value(atom) for atom in equation.invars]
                outputs = _apply(equation, arrays, substitutes, where)
            else:
                with jax.named_scope(EXACT_GELU):
                    outputs = [jax.nn.gelu(value(activated), approximate=True)]
        values.update(zip(equation.outvars, outputs, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _without_infinities(constant):
    """A constant with INFINITE for infinities, which the converter would make the largest numbers.

    `tflite_operators.restore_infinities` puts them back.
    """
    if getattr(constant, "dtype", None) != np.float32 or not np.isinf(constant).any():
        return constant
    constant = np.asarray(constant)
    return np.where(np.isinf(constant), np.sign(constant) * np.float32(INFINITE), constant)


def _apply(equation, inputs, substitutes, where):
    """Evaluates one equation; returns the list of its outputs."""
    name, params, inner = equation.primitive.name, equation.params, _inner(equation)
    if name in INLINED:
        (function,) = inner.values()
        return _run(function.jaxpr, function.consts, inputs, substitutes, outer=where)
    if name == "convert_element_type" and not isinstance(inputs[0], jax.core.Tracer):
        with jax.ensure_compile_time_eval():  # a substitute may ask what number it is
            return [equation.primitive.bind(*inputs, **params)]
    if name in substitutes:
        outputs = substitutes[name](equation, *inputs)
        if outputs is not None:
            return outputs
    rewritten = {
        key: _rewritten(param, substitutes, where)
        if isinstance(param, ClosedJaxpr)
        else _like(param, [_rewritten(one, substitutes, where) for one in param])
        for key, param in params.items()
        if key in inner and not isinstance(param, Jaxpr)  # what a scatter combines with is plain
    }
    outputs = equation.primitive.bind(*inputs, **params | rewritten)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def _like(params, values):
    """The values in a tuple of the type of params, which may have names."""
    return type(params)(*values) if hasattr(params, "_fields") else tuple(values)


def _rewritten(closed, substitutes, where):
    """The body of a loop or a branch, rewritten like the whole."""

    def function(*inputs):
        return _run(closed.jaxpr, closed.consts, inputs, substitutes, outer=where)

    return jax.make_jaxpr(function)(*closed.in_avals)


def _exact_gelu(equation, makers):
    """The x of x / 2 * erfc(-x / sqrt(2)), which is jax.nn.gelu(x, approximate=False), or None."""

    def parts(atom, name):
        maker = None if isinstance(atom, Literal) else makers.get(atom)
        return maker.invars if maker is not None and maker.primitive.name == name else None

    if equation.primitive.name != "mul":
        return None
    half, complement = (
        parts(atom, name) for atom, name in zip(equation.invars, ("mul", "erfc"), strict=True)
    )
    scaled = parts(complement[0], "mul") if half and complement else None
    negative = parts(scaled[0], "neg") if scaled else None
    numbers = (
        [atom.val for atom in (half[0], scaled[1]) if isinstance(atom, Literal)] if negative else []
    )
    if len(numbers) != 2 or negative[0] is not half[1]:
        return None
    return half[1] if np.allclose(numbers, (0.5, math.sqrt(0.5))) else None


def _inner(equation):
    """{name of the parameter: function, or tuple of functions} inside an equation."""
    found = {}
    for key, param in equation.params.items():
        if isinstance(param, ClosedJaxpr):
            found[key] = param
        elif isinstance(param, Jaxpr):
            found[key] = ClosedJaxpr(param, ())
        elif isinstance(param, tuple) and param and isinstance(param[0], ClosedJaxpr):
            found[key] = param
    return found
