"""Vision Transformer, "An Image is Worth 16x16 Words" (https://arxiv.org/abs/2010.11929).

The names are timm's.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.nn.initializers import truncated_normal

from model.modules import (
    Layers,
    as_float,
    attend_heads,
    conv2d,
    drop_path,
    global_average_pool,
    layer_norm,
    linear,
    stack,
)
from model.zoo.names import VIT as NAMES  # noqa: F401

SMALL = truncated_normal(0.02)
norm = partial(layer_norm, epsilon=1e-6)


def vit_small(x, classes=1000, drop_rate=0.0, token=True, *, params=None, key=None, train=False):
    """Returns `vit` of the size S/16."""
    hyper = {"features": 384, "heads": 6, "classes": classes, "drop_rate": drop_rate}
    return vit(x, **hyper, token=token, params=params, key=key, train=train)


def vit_base(x, classes=1000, drop_rate=0.0, token=True, *, params=None, key=None, train=False):
    """Returns `vit` of the size B/16."""
    hyper = {"features": 768, "heads": 12, "classes": classes, "drop_rate": drop_rate}
    return vit(x, **hyper, token=token, params=params, key=key, train=train)


def vit(
    x,
    patch=16,
    features=768,
    depth=12,
    heads=12,
    classes=1000,
    drop_rate=0.0,
    token=True,
    *,
    params=None,
    key=None,
    train=False,
):
    """Classifies images with attention among their patches.

    Args:
        x: (batch, channels, height, width) images
        patch: height and width of a patch, in pixels
        features: number of features of each patch
        depth: number of blocks
        heads: number of attention heads
        classes: number of classes; None returns (batch, features), what the head gets
        drop_rate: probability of skipping half a block for an example while training
        token: whether a class token is classified, or the mean of the patches

    Returns:
        logits: (batch, classes)
        params: patch_embed, cls_token, pos_embed, blocks/<block>, norm, head
    """
    layer = Layers(params, key, train)
    x = jnp.moveaxis(as_float(x, "batch", "channels", "height", "width"), 1, -1)
    x = layer("patch_embed", patch_embed, x, features, patch)
    if token:
        first = layer.array("cls_token", (1, 1, features), SMALL).astype(x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(first, (x.shape[0], 1, features)), x], 1)
    x = x + layer.array("pos_embed", (1, *x.shape[1:]), SMALL).astype(x.dtype)
    x = layer("blocks", stack, x, [partial(block, heads=heads, drop_rate=drop_rate)] * depth)
    x = layer("norm", norm, x)
    x = x[:, 0] if token else layer("pool", global_average_pool, x)
    if classes is not None:
        x = layer("head", linear, x, classes, initializer=SMALL)
    return x, layer.params


def patch_embed(x, features, patch, *, params=None, key=None, train=False):
    """Makes one position of each patch: (batch, patches, features)."""
    layer = Layers(params, key, train)
    x = layer("proj", conv2d, x, features, patch, stride=patch, padding="VALID")
    return x.reshape(x.shape[0], -1, features), layer.params


def block(x, heads, drop_rate=0.0, *, params=None, key=None, train=False):
    """Adds to x attention, then an MLP, each of normalised features: (batch, length, features)."""
    layer = Layers(params, key, train)
    y = layer("attn", attention, layer("norm1", norm, x), heads)
    x = x + layer("drop_path1", drop_path, y, drop_rate)
    y = layer("mlp", mlp, layer("norm2", norm, x))
    return x + layer("drop_path2", drop_path, y, drop_rate), layer.params


def attention(x, heads, *, params=None, key=None, train=False):
    """Computes multi-head self-attention; one matrix makes queries, keys and values."""
    layer = Layers(params, key, train)
    features = x.shape[-1]
    parts = jnp.split(layer("qkv", linear, x, 3 * features, initializer=SMALL), 3, -1)
    y = attend_heads(*parts, heads)
    return layer("proj", linear, y, features, initializer=SMALL), layer.params


def mlp(x, *, params=None, key=None, train=False):
    """Returns (..., features) by a hidden layer of four times as many."""
    layer = Layers(params, key, train)
    y = layer("fc1", linear, x, 4 * x.shape[-1], initializer=SMALL)
    y = jax.nn.gelu(y, approximate=False)
    return layer("fc2", linear, y, x.shape[-1], initializer=SMALL), layer.params
