"""BERT, "Pre-training of Deep Bidirectional Transformers" (https://arxiv.org/abs/1810.04805).

An encoder: each position sees all others. The names are those of Hugging Face's transformers.
"""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp

from model.modules import Layers, attend_heads, dropout, embedding, layer_norm, linear, stack
from model.zoo.gpt2 import SMALL, places
from model.zoo.names import BERT as NAMES  # noqa: F401

norm = partial(layer_norm, epsilon=1e-12)


def bert(
    x,
    classes=2,
    vocabulary=30522,
    positions=512,
    features=768,
    depth=12,
    heads=12,
    drop_rate=0.0,
    padding=0,
    *,
    params=None,
    key=None,
    train=False,
):
    """Classifies texts.

    Args:
        x: (batch, length) integers, tokens; or {"tokens": them, "types": (batch, length) integers,
            0 in the first text of a pair and 1 in the second}
        classes: number of classes; None returns what the encoder makes of each position
        vocabulary: number of tokens
        positions: largest length
        features: number of features of each position
        depth: number of blocks
        heads: number of attention heads
        drop_rate: probability of dropping a feature while training
        padding: the token that no position attends to

    Returns:
        logits: (batch, classes); without classes (batch, length, features)
        params: embeddings, encoder/layer/<block>, pooler, classifier

    Raises:
        ValueError: the text is longer than there are positions.
    """
    layer = Layers(params, key, train)
    tokens = x["tokens"] if isinstance(x, Mapping) else x
    types = x["types"] if isinstance(x, Mapping) else jnp.zeros_like(tokens)
    x = layer("embeddings", embeddings, tokens, types, vocabulary, positions, features, drop_rate)
    mask = (tokens != padding)[:, None, None, :]
    blocks = [partial(block, heads=heads, mask=mask, drop_rate=drop_rate)] * depth
    x = layer("encoder", encoder, x, blocks)
    if classes is None:
        return x, layer.params
    x = jnp.tanh(layer("pooler", dense, x[:, 0], features))
    x = layer("drop", dropout, x, drop_rate)
    return layer("classifier", linear, x, classes, initializer=SMALL), layer.params


def embeddings(
    x, types, vocabulary, positions, features, drop_rate, *, params=None, key=None, train=False
):
    """Returns the sum of three tables' rows, of each token, its type and its position."""
    layer = Layers(params, key, train)
    y = layer("word_embeddings", embedding, x, vocabulary, features)
    y = y + layer("token_type_embeddings", embedding, types, 2, features)
    y = y + layer("position_embeddings", embedding, places(x, positions), positions, features)
    return layer("drop", dropout, layer("LayerNorm", norm, y), drop_rate), layer.params


def encoder(x, blocks, *, params=None, key=None, train=False):
    """Calls the blocks one after another."""
    layer = Layers(params, key, train)
    return layer("layer", stack, x, blocks), layer.params


def block(x, heads, mask, drop_rate=0.0, *, params=None, key=None, train=False):
    """Applies attention, then an MLP, each added to its input and normalised."""
    layer = Layers(params, key, train)
    x = layer("attention", attention, x, heads, mask, drop_rate)
    y = layer("intermediate", dense, x, 4 * x.shape[-1])
    return layer("output", add, jax.nn.gelu(y, approximate=False), x, drop_rate), layer.params


def attention(x, heads, mask, drop_rate, *, params=None, key=None, train=False):
    """Adds to x what each position takes from all others, and normalises it."""
    layer = Layers(params, key, train)
    y = layer("self", self_attention, x, heads, mask)
    return layer("output", add, y, x, drop_rate), layer.params


def self_attention(x, heads, mask, *, params=None, key=None, train=False):
    """Computes multi-head self-attention: (batch, length, features)."""
    layer = Layers(params, key, train)
    names = ("query", "key", "value")
    parts = (layer(name, linear, x, x.shape[-1], initializer=SMALL) for name in names)
    return attend_heads(*parts, heads, mask), layer.params


def add(y, x, drop_rate, *, params=None, key=None, train=False):
    """Adds to x a linear function of y, and normalises the sum."""
    layer = Layers(params, key, train)
    y = layer("dense", linear, y, x.shape[-1], initializer=SMALL)
    y = layer("dropout", dropout, y, drop_rate)
    return layer("LayerNorm", norm, x + y), layer.params


def dense(x, features, *, params=None, key=None, train=False):
    """Returns `linear`, one level deeper."""
    layer = Layers(params, key, train)
    return layer("dense", linear, x, features, initializer=SMALL), layer.params
