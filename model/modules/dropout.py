"""Random dropping during training. These layers have no parameters."""

import jax
import jax.numpy as jnp

from model.modules.core import as_float, located


def dropout(x, rate, *, params=None, key=None, train=False):
    """Sets single features to zero at random, and scales the others to keep the mean.

    Srivastava et al., https://jmlr.org/papers/v15/srivastava14a.html

    Args:
        x: (...)
        rate: probability of dropping a feature, in [0, 1)

    Returns:
        y: (...); x itself unless `train=True`
        params: {}

    Raises:
        ValueError: the rate is out of range, or `train=True` without a key.
    """
    return _drop("dropout", as_float(x, "..."), rate, jnp.shape(x), key, train), {}


def drop_path(x, rate, *, params=None, key=None, train=False):
    """Sets whole examples to zero at random, so that they skip a residual block.

    "Deep Networks with Stochastic Depth", https://arxiv.org/abs/1603.09382

    Args:
        x: (batch, ...)
        rate: probability of dropping an example, in [0, 1)

    Returns:
        y: (batch, ...); x itself unless `train=True`
        params: {}

    Raises:
        ValueError: the rate is out of range, or `train=True` without a key.
    """
    x = as_float(x, "batch", "...")
    return _drop("drop_path", x, rate, (x.shape[0],) + (1,) * (x.ndim - 1), key, train), {}


def _drop(function, x, rate, shape, key, train):
    if not 0 <= rate < 1:
        raise ValueError(f"{located(function)}: rate is {rate}, expected 0 <= rate < 1.")
    if not train or rate == 0:
        return x
    if key is None:
        raise ValueError(
            f"{located(function)}: dropping at random needs a key. "
            f"Call y, params = {function}(x, rate, key=jax.random.key(0), train=True)."
        )
    kept = jax.random.bernoulli(key, 1 - rate, shape)
    return jnp.where(kept, x / (1 - rate), 0)
