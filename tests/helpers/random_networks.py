"""Random small networks over the functions of jax.numpy, jax.lax and jax.nn, for hypothesis."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax

from inference.export.network import Array, Network, describe
from inference.verify.reference import Reference, make_reference
from inference.verify.stablehlo import QUICK
from utils import UserError

MOST_EXAMPLES = 64  # of a batch of trials
SHAPE = (4, 6)  # of an example
SMALLEST = 1e-5  # of what was computed on the way: the rest of a difference is any number
LARGEST = 1e4  # what is larger is left out: the sine of 1e12 is any number
OF_NUMPY = """abs sin cos tan tanh exp exp2 floor ceil trunc sign square sqrt reciprocal cbrt arcsin
    arccos arctan sinh cosh arcsinh arccosh arctanh rint expm1 log log1p log2 log10 deg2rad isnan
    isinf logical_not signbit sinc nan_to_num"""
OF_LAX = "erf erfc erf_inv logistic neg rsqrt is_finite lgamma digamma"
OF_NN = """relu relu6 gelu silu softplus sparse_plus soft_sign elu selu celu hard_tanh hard_swish
    hard_sigmoid leaky_relu mish log_sigmoid squareplus"""
REDUCING = """sum mean max min prod std var argmax argmin any all cumsum cumprod sort argsort median
    flip ptp nansum count_nonzero"""
OF_TWO = """add subtract multiply divide maximum minimum power arctan2 fmod remainder floor_divide
    hypot logaddexp logaddexp2 greater less_equal equal not_equal copysign heaviside nextafter"""
OF_INTEGERS = """add subtract multiply maximum floor_divide remainder fmod bitwise_and bitwise_or
    bitwise_xor left_shift right_shift greater power gcd"""


def _named(module, names):
    return {name: getattr(module, name) for name in names.split()}


def _real(x):
    return x.astype(jnp.float32)


def _whole(x):
    """Whole numbers; no number that a constant may have is at a step."""
    return (x + 0.0123).astype(jnp.int32)


def _matrix(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def _index(x):
    """The number of a row for each example, from 0 to 2."""
    return jnp.abs(_whole(2 * x.reshape(x.shape[0], -1)[:, 0])) % min(3, x.shape[1])


def _convolved(x, window, **options):
    """A convolution along axis 1; the last one are the channels."""
    x = _real(x).reshape(x.shape[0], x.shape[1], -1)
    kernel = _matrix(window, x.shape[-1] // options.get("feature_group_count", 1), x.shape[-1])
    options = {"window_strides": (1,), "padding": "SAME"} | options
    return lax.conv_general_dilated(x, kernel, dimension_numbers=("NWC", "WIO", "NWC"), **options)


def _window(x, combine, start, **options):
    x, rank = _real(x), x.ndim - 1
    options = {"window_strides": (1,) + (2,) * rank, "padding": "SAME"} | options
    return lax.reduce_window(x, start, combine, (1,) + (2,) * rank, **options)


def _slices(x):
    """Slices of two rows and one column."""
    starts, sizes = (0,) * (x.ndim - 1), (2, *x.shape[1:-1], 1)
    return jax.vmap(lambda at: lax.dynamic_slice(x, (at, *starts), sizes))(np.arange(2))


def _repeated(x):
    """A loop whose length is known when it runs."""
    return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] / 2), (0, _real(x)))[1]


ELEMENTWISE = _named(jnp, OF_NUMPY) | _named(lax, OF_LAX) | _named(jax.nn, OF_NN)
ALONG = _named(jnp, REDUCING) | _named(jax.nn, "softmax log_softmax logsumexp")
ALONG |= {
    "cumsum, reverse": lambda x, axis: lax.cumsum(x, axis % x.ndim, reverse=True),
    "cummax": lambda x, axis: lax.cummax(x, axis % x.ndim),
    "cummin": lambda x, axis: lax.cummin(x, axis % x.ndim, reverse=True),
    "cumlogsumexp": lambda x, axis: lax.cumlogsumexp(_real(x), axis % x.ndim),
    "top_k": lambda x, axis: lax.top_k(x, 2, axis=axis)[0],
    "indices of top_k": lambda x, axis: lax.top_k(x, 2, axis=axis)[1],
    "sort by a key": lambda x, axis: lax.sort((x, -2 * x), dimension=axis % x.ndim)[1],
    "sort by two": lambda x, axis: lax.sort((_whole(x), x), dimension=axis % x.ndim, num_keys=2)[1],
    "diff": lambda x, axis: jnp.diff(x, axis=axis),
    "roll": lambda x, axis: jnp.roll(x, 2, axis=axis),
    "quantile": lambda x, axis: jnp.quantile(x, 0.3, axis=axis),
    "norm": lambda x, axis: jnp.linalg.norm(x, axis=axis),
    "take_along_axis": lambda x, axis: jnp.take_along_axis(
        x, _whole(x) % min(2, x.shape[axis]), axis
    ),
    "put_along_axis": lambda x, axis: jnp.put_along_axis(
        x, _whole(x) % min(2, x.shape[axis]), 1.0, axis, inplace=False
    ),
    "own product": lambda x, axis: lax.reduce(
        _real(x), np.float32(1), lambda a, b: a * b + 0, (axis % x.ndim,)
    ),
}
SHAPES = {
    "transpose": lambda x: jnp.moveaxis(x, -1, 1),
    "flatten": lambda x: x.reshape(x.shape[0], -1),
    "slice": lambda x: x[:, 1:],
    "strides": lambda x: x[..., ::2],
    "pad": lambda x: jnp.pad(x, [(0, 0)] + [(1, 2)] * (x.ndim - 1)),
    "pad inside": lambda x: lax.pad(
        x, jnp.ones((), x.dtype), [(0, 0, 0)] + [(1, -1, 2)] * (x.ndim - 1)
    ),
    "edges": lambda x: jnp.pad(x, [(0, 0)] + [(1, 1)] * (x.ndim - 1), mode="reflect"),
    "repeat": lambda x: jnp.repeat(x, 2, axis=-1),
    "tile": lambda x: jnp.tile(x, (1,) * (x.ndim - 1) + (2,)),
    "set": lambda x: x.at[..., 1].set(0),
    "add at": lambda x: x.at[:, np.array([0, 1, 1])].add(1),
    "max at": lambda x: x.at[:, np.array([0, 1])].max(1),
    "apply at": lambda x: x.at[..., 1].apply(lambda a: a * a),
    "take": lambda x: jnp.take(x, np.array([1, 0, 1]), axis=-1),
    "take, wrapped": lambda x: jnp.take(x, np.array([1, -1, 9]), axis=1, mode="wrap"),
    "row of each": lambda x: x[jnp.arange(x.shape[0]), _index(x)],
    "slice of each": lambda x: jax.vmap(lambda a, i: lax.dynamic_slice_in_dim(a, i, 2))(
        x, _index(x)
    ),
    "slices of rows": lambda x: jax.vmap(_slices)(x),
    "update of each": lambda x: jax.vmap(
        lambda a, i: lax.dynamic_update_slice_in_dim(a, a[:1], i, 0)
    )(x, _index(x)),
    "one hot": lambda x: jax.nn.one_hot(_index(x), 3),
    "where": lambda x: jnp.where(x > 0, x, 0.1 * x),
    "select": lambda x: jnp.select([x > 1, x > 0], [x, 2 * x], -x),
    "select_n": lambda x: lax.select_n(_whole(jnp.abs(x)) % 4, x, 2 * x, -x, x + 1),
    "piecewise": lambda x: jnp.piecewise(x, [x < 0, x > 1], [jnp.negative, jnp.square]),
    "clip": lambda x: jnp.clip(x, -1, 1),
    "integers": lambda x: _whole(x * 3),
    "bytes": lambda x: (jnp.abs(x) * 3).astype(jnp.uint8) % 5,
    "half": lambda x: (
        x.astype(jnp.bfloat16).astype(jnp.float32) + lax.reduce_precision(_real(x), 5, 10)
    ),
    "dense": lambda x: _real(x) @ _matrix(x.shape[-1], 3),
    "dense 1": lambda x: jnp.tensordot(_real(x), _matrix(x.shape[1], 3), (1, 0)),
    "attention": lambda x: jax.nn.dot_product_attention(
        *[_real(x).reshape(x.shape[0], x.shape[1], 1, -1)] * 3, is_causal=True
    ),
    "outer": lambda x: jnp.einsum("bi,bj->bij", *[x.reshape(x.shape[0], -1)[:, :4]] * 2),
    "einsum": lambda x: jnp.einsum("b...i,b...i->b...", x, x),
    "gram": lambda x: jnp.einsum("bi...,bj...->bij", _real(x), _real(x)),
    "new axis": lambda x: x[:, None],
    "triangle": lambda x: jnp.tril(x),
    "mesh": lambda x: (
        x + jnp.arange(x.shape[-1]) - lax.broadcasted_iota(x.dtype, x.shape, x.ndim - 1)
    ),
    "conv": lambda x: _convolved(x, 3),
    "conv, dilated": lambda x: _convolved(x, 2, rhs_dilation=(2,), padding=[(1, 2)]),
    "conv, strides": lambda x: _convolved(x, 2, window_strides=(2,), padding="VALID"),
    "conv, transposed": lambda x: _convolved(x, 3, lhs_dilation=(2,), padding=[(1, 2)]),
    "conv, cropped": lambda x: _convolved(x, 3, padding=[(2, -1)]),
    "conv, depthwise": lambda x: _convolved(x, 3, feature_group_count=x[0, 0].size),
    "max-pool": lambda x: _window(x, lax.max, -np.inf),
    "min-pool": lambda x: _window(x, lax.min, np.inf, padding="VALID"),
    "sum-pool": lambda x: _window(x, lax.add, 0.0),
    "sum-pool, dilated": lambda x: _window(
        x, lax.add, 0.0, window_dilation=(1,) + (2,) * (x.ndim - 1), window_strides=(1,) * x.ndim
    ),
    "max-pool, spread": lambda x: _window(
        x, lax.max, -np.inf, base_dilation=(1,) + (2,) * (x.ndim - 1)
    ),
    "product-pool": lambda x: _window(x, lax.mul, 1.0, padding="VALID"),
    "resize": lambda x: jax.image.resize(_real(x), (x.shape[0],) + (5,) * (x.ndim - 1), "linear"),
    "interp": lambda x: jnp.interp(x, np.float32([-1, 0, 2]), np.float32([1, 0, 3])),
    "searchsorted": lambda x: jnp.searchsorted(np.float32([-1, 0, 2]), x),
    "digitize": lambda x: jnp.digitize(x, np.float32([-1, 0, 2])),
    "histogram": lambda x: jax.vmap(lambda i: jnp.bincount(i, length=3))(
        _whole(jnp.abs(x)).reshape(x.shape[0], -1) % 3
    ),
    "segments": lambda x: jax.vmap(lambda a: jax.ops.segment_sum(a, np.arange(a.shape[0]) % 2, 2))(
        x
    ),
    "scan": lambda x: lax.scan(lambda s, r: (s + r, s * r), x[:, 0], x.swapaxes(0, 1))[0],
    "scan, outputs": lambda x: lax.scan(
        lambda s, r: (0.5 * s + r,) * 2, _real(x)[:, 0], _real(x).swapaxes(0, 1)
    )[1].swapaxes(0, 1),
    "map": lambda x: lax.map(jnp.tanh, _real(x).swapaxes(0, 1)).swapaxes(0, 1),
    "fori": lambda x: lax.fori_loop(0, 3, lambda i, s: s * 0.5 + i, _real(x)),
    "while": _repeated,
    "cond": lambda x: lax.cond(x.shape[-1] - jnp.sum(jnp.ones(3)) > 0, jnp.sin, jnp.cos, _real(x)),
    "switch of each": lambda x: jax.vmap(
        lambda i, a: lax.switch(i, [jnp.sin, jnp.cos, jnp.tanh], a)
    )(_index(x), _real(x)),
    "bits": lambda x: lax.population_count(_whole(x * 3)),
    "bitcast": lambda x: lax.bitcast_convert_type(_real(x), jnp.int32) & 7,
    "inverse": lambda x: jnp.linalg.inv(jnp.eye(3) + 0.1 * x.reshape(x.shape[0], -1)[:, :1, None]),
    "fft": lambda x: jnp.abs(jnp.fft.rfft(_real(x))),
    "random": lambda x: x + jax.random.normal(jax.random.key(0), x.shape[1:]),
}


def _steps():
    """{name: x -> x} of all that a network may be made of."""
    steps = dict(ELEMENTWISE) | SHAPES
    for name, function in ALONG.items():
        steps[name] = lambda x, function=function: function(x, axis=-1)
        steps[f"{name}, axis 1"] = lambda x, function=function: function(x, axis=1)
    for name, function in _named(jnp, OF_TWO).items():
        steps[name] = lambda x, function=function: function(x, 0.5 * x + 0.3)
        steps[f"{name} 1.7"] = lambda x, function=function: function(x, 1.7)
    for name, function in _named(jnp, OF_INTEGERS).items():
        steps[f"{name} of integers"] = lambda x, function=function: function(_whole(3 * x), 3)
        steps[f"{name} by integers"] = lambda x, function=function: function(
            _whole(3 * x), 1 + jnp.abs(_whole(x))
        )
    return steps


STEPS = _steps()
names = st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4)


class RandomNetwork(NamedTuple):
    """A network, and what its files are compared with."""

    network: Network
    reference: Reference
    # Whether it treats examples one by one, and all is finite, and neither too large nor the small
    # rest of a difference: files must agree.
    is_defined: bool


def random_network(names):
    """Returns the RandomNetwork of some names of STEPS; None if they make no network of JAX."""

    def network(x, seen):
        for name in names:
            x = STEPS[name](x)
            seen.append(x)
        return {"y": x}

    @partial(jax.jit, compiler_options=QUICK)
    def measured(x):
        seen = []
        y = network(x, seen)["y"]
        return y, [jnp.max(jnp.abs(_real(one)), initial=0) for one in seen]

    def compiled_once(x):  # for each size of the batch it takes a second
        if isinstance(x, jax.core.Tracer):
            return network(x, [])["y"]
        y, seen = measured(np.resize(x, (MOST_EXAMPLES, *SHAPE)))
        largest.extend(map(float, seen))
        return (np.asarray(y)[: len(x)],)

    largest, arrays = [], [Array("x", SHAPE, np.dtype(np.float32))]
    try:
        described = describe(lambda x: network(x, []), arrays)
        reference = make_reference(compiled_once, lambda *raw: raw, described, [], None)
    except (UserError, TypeError, ValueError, IndexError, ZeroDivisionError):
        return None
    if 0 in described.outputs[0].shape:
        return None
    x = np.random.default_rng(0).standard_normal((MOST_EXAMPLES, *SHAPE)).astype(np.float32)
    y, seen = jax.device_get(measured(x))
    rolled = np.roll(y, 1, axis=0), measured(np.roll(x, 1, axis=0))[0]
    one_by_one = np.array_equal(*rolled, equal_nan=y.dtype == np.float32)
    cancelled = y.dtype == np.float32 and 0 < seen[-1] < SMALLEST * max(seen)
    steady = not cancelled and all(one <= LARGEST for one in largest)
    return RandomNetwork(described, reference, one_by_one and steady)
