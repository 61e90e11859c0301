"""GPT-2, "Language Models are Unsupervised Multitask Learners" (Radford et al. 2019).

A decoder: each position sees those before it. The names are those of Hugging Face's transformers.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.nn.initializers import truncated_normal

from model.modules import Layers, attend_heads, dropout, embedding, layer_norm, linear, stack
from model.zoo.names import GPT2 as NAMES  # noqa: F401

SMALL = truncated_normal(0.02)


def gpt2(
    x,
    vocabulary=50257,
    positions=1024,
    features=768,
    depth=12,
    heads=12,
    drop_rate=0.0,
    *,
    params=None,
    key=None,
    train=False,
):
    """Predicts the next token at each position.

    Args:
        x: (batch, length) integers, tokens
        vocabulary: number of tokens
        positions: largest length
        features: number of features of each position
        depth: number of blocks
        heads: number of attention heads
        drop_rate: probability of dropping a feature while training

    Returns:
        logits: (batch, length, vocabulary); the table of the tokens is the last layer, too
        params: wte, wpe, h/<block>, ln_f

    Raises:
        ValueError: the text is longer than there are positions.
    """
    layer = Layers(params, key, train)
    place = layer("wpe", embedding, places(x, positions), positions, features)
    x = layer("drop", dropout, layer("wte", embedding, x, vocabulary, features) + place, drop_rate)
    x = layer("h", stack, x, [partial(block, heads=heads, drop_rate=drop_rate)] * depth)
    x = layer("ln_f", layer_norm, x)
    return x @ layer.params["wte"]["table"].T.astype(x.dtype), layer.params


def places(tokens, positions):
    """Returns 0, 1, ... for the tokens of a text, which has at most so many positions."""
    length = tokens.shape[1]
    if length > positions:
        raise ValueError(f"a text of {length} tokens, expected at most {positions} (positions).")
    return jnp.arange(length)


def block(x, heads, drop_rate=0.0, *, params=None, key=None, train=False):
    """Adds to x attention, then an MLP, each of normalised features: (batch, length, features)."""
    layer = Layers(params, key, train)
    y = layer("attn", attention, layer("ln_1", layer_norm, x), heads)
    x = x + layer("drop1", dropout, y, drop_rate)
    y = layer("mlp", mlp, layer("ln_2", layer_norm, x))
    return x + layer("drop2", dropout, y, drop_rate), layer.params


def attention(x, heads, *, params=None, key=None, train=False):
    """Computes multi-head attention of each position to those before it and itself."""
    layer = Layers(params, key, train)
    length, features = x.shape[1:]
    parts = jnp.split(layer("c_attn", linear, x, 3 * features, initializer=SMALL), 3, -1)
    y = attend_heads(*parts, heads, jnp.tril(jnp.ones((length, length), bool)))
    return layer("c_proj", linear, y, features, initializer=SMALL), layer.params


def mlp(x, *, params=None, key=None, train=False):
    """Returns (..., features) by a hidden layer of four times as many."""
    layer = Layers(params, key, train)
    y = jax.nn.gelu(layer("c_fc", linear, x, 4 * x.shape[-1], initializer=SMALL))
    return layer("c_proj", linear, y, x.shape[-1], initializer=SMALL), layer.params
