"""Random small networks over the functions of jax.numpy, jax.lax and jax.nn, by a seed."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

OF_NUMPY = """abs sin cos tanh exp floor ceil sign square cbrt arctan sinh round rint expm1
    log1p"""
OF_LAX = "erf logistic neg rsqrt is_finite"
OF_NN = """relu gelu silu softplus elu selu celu hard_tanh hard_swish relu6 leaky_relu mish
    log_sigmoid softmax log_softmax standardize squareplus soft_sign"""
REDUCING = """sum mean max min prod std var argmax argmin any all cumsum cumprod sort argsort median
    flip ptp"""
OF_TWO = """add subtract multiply divide maximum minimum power arctan2 fmod remainder floor_divide
    hypot logaddexp greater equal copysign heaviside"""


def _named(module, names):
    return {name: getattr(module, name) for name in names.split()}


ELEMENTWISE = _named(jnp, OF_NUMPY) | _named(lax, OF_LAX) | _named(jax.nn, OF_NN)
ALONG = _named(jnp, REDUCING)
BINARY = _named(jnp, OF_TWO)
ALONG["roll"] = lambda x, axis: jnp.roll(x, 2, axis=axis)
ALONG |= {
    "logsumexp": jax.nn.logsumexp,
    "cumsum, reverse": lambda x, axis: lax.cumsum(x, axis % x.ndim, reverse=True),
    "cummax": lambda x, axis: lax.cummax(x, axis % x.ndim),
    "top_k": lambda x, axis: lax.top_k(x, 2)[0],
    "diff": lambda x, axis: jnp.diff(x, axis=axis),
}
SHAPES = {
    "transpose": lambda x, random: jnp.moveaxis(x, -1, 1),
    "flatten": lambda x, random: x.reshape(x.shape[0], -1),
    "slice": lambda x, random: x[:, 1:],
    "strides": lambda x, random: x[..., ::2],
    "pad": lambda x, random: jnp.pad(x, [(0, 0)] + [(1, 2)] * (x.ndim - 1)),
    "edges": lambda x, random: jnp.pad(x, [(0, 0)] + [(1, 1)] * (x.ndim - 1), mode="reflect"),
    "repeat": lambda x, random: jnp.repeat(x, 2, axis=-1),
    "tile": lambda x, random: jnp.tile(x, (1,) * (x.ndim - 1) + (2,)),
    "set": lambda x, random: x.at[..., 1].set(0),
    "add at": lambda x, random: x.at[:, np.array([0, 1, 1])].add(1),
    "take": lambda x, random: jnp.take(x, np.array([1, 0, 1]), axis=-1),
    "one hot": lambda x, random: jax.nn.one_hot(x.argmax(-1), 3),
    "where": lambda x, random: jnp.where(x > 0, x, 0.1 * x),
    "clip": lambda x, random: jnp.clip(x, -1, 1),
    "integers": lambda x, random: (x * 3).astype(jnp.int32),
    "bytes": lambda x, random: (jnp.abs(x) * 3).astype(jnp.uint8) % 5,
    "dense": lambda x, random: x @ random.standard_normal((x.shape[-1], 3)).astype(np.float32),
    "new axis": lambda x, random: x[:, None],
    "einsum": lambda x, random: jnp.einsum("b...i,b...i->b...", x, x),
    "scan": lambda x, random: lax.scan(lambda s, r: (s + r, s * r), x[:, 0], x.swapaxes(0, 1))[0],
}


def random_network(seed):
    """Returns (words, `x -> output`) for x (batch, 4, 5) in float32."""
    random = np.random.default_rng(seed)
    steps = []
    for _ in range(random.integers(1, 5)):
        kinds = [ELEMENTWISE, ALONG, BINARY, SHAPES]
        kind = kinds[random.choice(4, p=[0.35, 0.25, 0.15, 0.25])]
        name = str(random.choice(list(kind)))
        steps.append((name, kind[name], kind))

    def network(x):
        for at, (_, function, kind) in enumerate(steps):
            if kind is ALONG:
                x = function(x, axis=-1)
            elif kind is BINARY:
                x = function(x, 0.5 * x + 0.3 if at % 2 else 1.7)
            elif kind is SHAPES:
                x = function(x, np.random.default_rng(seed))
            else:
                x = function(x)
        return {"y": x}

    return " -> ".join(name for name, _, _ in steps), network
