"""Continues a text with a trained `writer`, keeping attention's keys and values in a cache."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import gelu

from model.modules import attend, layer_norm, linear


def generate(params, codes, count, key, heads, temperature=1.0, top_k=None):
    """Yields the tokens that a network adds to others, one by one.

    They are those that it would choose if it were run on all tokens again each time. Its positions
    are absolute, so it is run again once there are more tokens than its context.

    Args:
        params: of `writer`.
        codes: the tokens to begin with, at least one.
        count: how many to add.
        key: random key; the same key gives the same tokens.
        heads: number of attention heads, as in training.
        temperature: 0: always the most likely token; 1: the network's own probabilities.
        top_k: choose among so many of the most likely ones only; None: among all.
    """
    codes, context, cache = list(codes), len(params["position"]), None
    for key_now in jax.random.split(key, count):
        seen = codes[-context:]
        if cache is None or len(codes) > context:
            window = np.zeros(context, np.int32)  # what is behind the last token is not seen
            window[: len(seen)] = seen
            logits, cache = _run(params, empty_cache(params, heads), window, 0, heads)
            logits = logits[len(seen) - 1]
        else:
            last = np.array(codes[-1:], np.int32)
            logits, cache = _run(params, cache, last, len(codes) - 1, heads)
            logits = logits[0]
        codes.append(int(choose(logits, key_now, temperature, top_k)))
        yield codes[-1]


def choose(logits, key, temperature=1.0, top_k=None):
    """Draws a token, or takes the most likely one.

    Args:
        logits: (tokens,).
        key: random key.
        temperature: 0: the most likely; else the logits are divided by it.
        top_k: see `generate`.
    """
    if temperature == 0:
        return logits.argmax()
    if top_k is not None and top_k < len(logits):
        logits = jnp.where(logits < jax.lax.top_k(logits, top_k)[0][-1], -jnp.inf, logits)
    return jax.random.categorical(key, logits / temperature)


def empty_cache(params, heads):
    """Returns room for keys and values, (depth, 2, 1, context, heads, features of a head)."""
    depth = sum(name.startswith("block") for name in params)
    context, features = params["position"].shape
    return jnp.zeros((depth, 2, 1, context, heads, features // heads))


@partial(jax.jit, static_argnames="heads")
def _run(params, cache, codes, start, heads):
    """Runs `writer` on further tokens.

    Args:
        params: of `writer`.
        cache: what `empty_cache` returned, or the run before.
        codes: (length,) tokens at the positions `start`, `start + 1`, ...
        start: number of tokens before them, whose keys and values are in the cache.
        heads: number of attention heads.

    Returns:
        logits (length, tokens), and the cache with theirs.
    """
    at = start + jnp.arange(len(codes))
    past = jnp.arange(cache.shape[3]) <= at[:, None]
    y = params["characters"]["table"][codes][None] + params["position"][at]

    def split(y):
        return y.reshape(*y.shape[:2], heads, -1)

    for index in range(len(cache)):
        block = params[f"block{index}"]
        inner, features = block["attention"], y.shape[-1]
        x = _apply(layer_norm, block["attention_norm"], y)
        queries, *new = (
            split(_apply(linear, inner[name], x, features)) for name in ("query", "key", "value")
        )
        cache = jax.lax.dynamic_update_slice(
            cache, jnp.stack(new)[None], (index, 0, 0, start, 0, 0)
        )
        x = attend(queries, *cache[index], past).reshape(y.shape)
        y = y + _apply(linear, inner["output"], x, features)
        x = _apply(layer_norm, block["norm"], y)
        x = gelu(_apply(linear, block["expand"], x, 4 * features))
        y = y + _apply(linear, block["project"], x, features)
    y = _apply(layer_norm, params["norm"], y)
    return _apply(linear, params["head"], y, params["head"]["kernel"].shape[-1])[0], cache


def _apply(layer, params, x, *hyper):
    return layer(x, *hyper, params=params)[0]
