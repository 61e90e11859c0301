"""Digits without labels: two views of a picture are alike, those of others are not.

SimCLR in small (Chen et al. 2020, https://arxiv.org/abs/2002.05709). The labels are for a metric.
"""

import jax
import jax.numpy as jnp
import numpy as np

from data_loader.transforms import random_shift
from model.modules import Layers, as_float, conv2d, global_average_pool, layer_norm, linear
from training.loss import info_nce
from training.metrics import over_the_epoch

ROWS = 1000  # whose neighbours are looked for at a time


def simclr(x, features=32, projected=32, *, params=None, key=None, train=False):
    """Embeds pictures; in training two views of each.

    Args:
        x: (batch, channels, height, width) pictures
        features: of the first convolution
        projected: numbers that views are compared by

    Returns:
        outputs: {"views": (batch, 2, projected), "embedding": (batch, 4 * features)}; in evaluation
            both views are the picture as it is
        params: the network's parameters
    """
    layer = Layers(params, key, train)
    x = as_float(x, "batch", "channels", "height", "width")
    views = [x]
    if train:
        views = [view_of(x, key=one) for one in jax.random.split(key)]
    embedding = layer("encoder", encoder, jnp.concatenate(views), features)
    hidden = jax.nn.gelu(layer("hidden", linear, embedding, 4 * features))
    points = jnp.split(layer("projection", linear, hidden, projected), len(views))
    return {
        "views": jnp.stack([points[0], points[-1]], 1),
        "embedding": embedding[: x.shape[0]],
    }, layer.params


def encoder(x, features, *, params=None, key=None, train=False):
    """Returns (batch, 4 * features) of (batch, channels, height, width) pictures."""
    layer = Layers(params, key, train)
    x = jnp.moveaxis(x, 1, -1)
    for index, width in enumerate((features, 2 * features, 4 * features)):
        x = layer(f"conv{index}", conv2d, x, width, 4, stride=2)
        x = jax.nn.gelu(layer(f"norm{index}", layer_norm, x))
    return layer("pool", global_average_pool, x), layer.params


def view_of(x, *, key):
    """Shifts, shears and stretches each picture of a batch at random, and erases a square."""
    keys = jax.random.split(key, 3)
    batch, _, height, width = x.shape
    x = random_shift(x, 2, key=keys[0])
    matrix = jnp.eye(2) + jax.random.uniform(keys[1], (batch, 2, 2), minval=-0.25, maxval=0.25)
    places = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"))
    middle = jnp.array([height, width])[:, None, None] / 2 - 0.5
    rows, columns = jnp.moveaxis(jnp.einsum("bij,jhw->bihw", matrix, places - middle), 1, 0)
    rows = jnp.clip(jnp.round(rows + middle[0]), 0, height - 1).astype(jnp.int32)
    columns = jnp.clip(jnp.round(columns + middle[1]), 0, width - 1).astype(jnp.int32)
    x = jax.vmap(lambda image, row, column: image[:, row, column])(x, rows, columns)
    corner = jax.random.randint(keys[2], (batch, 2, 1, 1), 0, height - 8)
    inside = ((places >= corner) & (places < corner + 8)).all(1, keepdims=True)
    return jnp.where(inside, x.min(), x)


def contrast(outputs, targets, *, weight, temperature=0.2):
    """Computes `info_nce` of the views; the targets are not used."""
    return info_nce(outputs["views"], targets, weight=weight, temperature=temperature)


@over_the_epoch
def neighbours(outputs, targets):
    """Computes how often the most similar other picture of the split is of the same digit."""
    points = outputs["embedding"] / np.linalg.norm(outputs["embedding"], axis=1, keepdims=True)
    right = 0
    for start in range(0, len(points), ROWS):
        cosines = points[start : start + ROWS] @ points.T
        own = np.arange(len(cosines))
        cosines[own, start + own] = -np.inf
        right += (targets[cosines.argmax(1)] == targets[start : start + ROWS]).sum()
    return right / len(points)
