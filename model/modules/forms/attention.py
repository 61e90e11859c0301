"""Attention of several heads: `softmax(queries · keys / sqrt(features)) · values`.

b: batch, h: head, q: query, k: key, d: feature; the softmax is computed in float32.
"""

import math

import jax
import jax.numpy as jnp


def plain_attend(queries, keys, values, mask):
    """Positions before heads, as in `attend`."""
    logits = jnp.einsum("bqhd,bkhd->bhqk", queries, keys, preferred_element_type=jnp.float32)
    weights = _softmax(logits / math.sqrt(queries.shape[-1]), mask)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(values.dtype), values)


def heads_first_attend(queries, keys, values, mask):
    """The same with heads before positions: batches of products that are contiguous in memory."""
    first = (each.swapaxes(1, 2) for each in (queries, keys, values))
    return _attend(*first, mask).swapaxes(1, 2)


@jax.custom_vjp
def _attend(queries, keys, values, mask):
    """Defines its own gradients, so `jax.jvp` and hessians need `plain_operators()`.

    All but the mask are (batch, heads, positions, features).
    """
    return _attend_forward(queries, keys, values, mask)[0]


def _attend_forward(queries, keys, values, mask):
    logits = jnp.einsum("bhqd,bhkd->bhqk", queries, keys, preferred_element_type=jnp.float32)
    weights = _softmax(logits / math.sqrt(queries.shape[-1]), mask)
    y = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(values.dtype), values)
    return y, (queries, keys, values, weights)


def _attend_backward(saved, grads):
    queries, keys, values, weights = saved
    to_values = jnp.einsum("bhqk,bhqd->bhkd", weights.astype(grads.dtype), grads)
    to_weights = jnp.einsum("bhqd,bhkd->bhqk", grads, values, preferred_element_type=jnp.float32)
    # of softmax; a position that is hidden has no weight, and so no gradient
    to_logits = weights * (to_weights - (to_weights * weights).sum(-1, keepdims=True))
    to_logits = (to_logits / math.sqrt(queries.shape[-1])).astype(queries.dtype)
    to_queries = jnp.einsum("bhqk,bhkd->bhqd", to_logits, keys)
    to_keys = jnp.einsum("bhqk,bhqd->bhkd", to_logits, queries)
    gradients = zip((to_queries, to_keys, to_values), (queries, keys, values), strict=True)
    return *(gradient.astype(of.dtype) for gradient, of in gradients), None


_attend.defvjp(_attend_forward, _attend_backward)


def _softmax(logits, mask):
    if mask is None:
        return jax.nn.softmax(logits, axis=-1)
    # The lowest finite number rather than -inf: a row of only -inf would give NaN.
    lowest = jnp.finfo(logits.dtype).min
    weights = jax.nn.softmax(jnp.where(mask, logits, lowest), axis=-1)
    return jnp.where(mask, weights, 0.0)
