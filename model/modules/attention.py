"""Attention: each position receives a weighted mean of the values at other positions."""

from model.modules import operators
from model.modules.core import Layers, as_float, located
from model.modules.dense import linear


def attention(x, heads, context=None, mask=None, *, params=None, key=None, train=False):
    """Computes multi-head attention of each position of x to all positions of the context.

    "Attention Is All You Need", https://arxiv.org/abs/1706.03762, section 3.2.

    Args:
        x: (batch, queries, features)
        heads: number of heads; they share the features equally
        context: (batch, keys, context features) to attend to; None for x itself (self-attention)
        mask: booleans that broadcast to (batch, heads, queries, keys), True where a query may
            attend; `jnp.tril(jnp.ones((length, length), bool))` hides the future

    Returns:
        y: (batch, queries, features)
        params: query, key, value, output: each with the parameters of `linear`

    Raises:
        ValueError: the heads do not divide the features, or the mask does not fit.
    """
    layer = Layers(params, key, train)
    x = as_float(x, "batch", "queries", "features")
    context = x if context is None else as_float(context, "batch", "keys", "features")
    features = x.shape[-1]
    y = attend_heads(
        layer("query", linear, x, features),
        layer("key", linear, context, features),
        layer("value", linear, context, features),
        heads,
        mask,
    )
    return layer("output", linear, y, features), layer.params


def attend_heads(queries, keys, values, heads, mask=None):
    """Returns `attend` of features that are split among heads, joined again.

    Args:
        queries: (batch, queries, features)
        keys: (batch, keys, features)
        values: (batch, keys, features)
        heads: number of heads
        mask: booleans that broadcast to (batch, heads, queries, keys), or None

    Returns: (batch, queries, features)

    Raises:
        ValueError: the heads do not divide the features, or the mask does not fit.
    """
    features = queries.shape[-1]
    if features % heads:
        raise ValueError(
            f"{located('attention')}: {heads} heads do not divide {features} features."
        )
    _check_mask(mask, (queries.shape[0], heads, queries.shape[1], keys.shape[1]))
    split = (y.reshape(*y.shape[:2], heads, features // heads) for y in (queries, keys, values))
    return attend(*split, mask).reshape(queries.shape)


def attend(queries, keys, values, mask=None):
    """Returns softmax(queries · keys / sqrt(features)) · values, for each head.

    The softmax is computed in float32. A query that may attend to nothing gets zeros.

    Args:
        queries: (batch, queries, heads, features)
        keys: (batch, keys, heads, features)
        values: (batch, keys, heads, features)
        mask: booleans that broadcast to (batch, heads, queries, keys), or None

    Returns: (batch, queries, heads, features)
    """
    return operators.attend(queries, keys, values, mask)


def _check_mask(mask, shape):
    if mask is None:
        return
    fits = mask.ndim <= len(shape) and all(
        size in (1, expected) for size, expected in zip(mask.shape[::-1], shape[::-1], strict=False)
    )
    if mask.dtype != bool or not fits:
        raise ValueError(
            f"{located('attention')}: expected a mask of booleans that broadcast to {shape} "
            f"(batch, heads, queries, keys), got {mask.dtype} of shape {mask.shape}."
        )
