"""Segmentation: pictures of shapes on a noisy ground, and a U-Net."""

import jax.numpy as jnp
import numpy as np
from jax.nn import gelu

from model.modules import Layers, conv2d, layer_norm, linear, max_pool

COLOURS = np.array([(190, 90, 90), (90, 170, 90), (100, 100, 190)])  # each varies by 100


class Shapes:
    """Pictures, uint8 (3, size, size), and masks, int32 (size, size), of three shapes each.

    Args:
        count: number of pictures.
        seed: the same pictures come from the same seed.
        size: height and width in pixels.
    """

    classes = None  # masks have classes, but an example has no single one

    def __init__(self, count, seed, size=32):
        random = np.random.default_rng(seed)
        noise = random.integers(0, 120, (count, 3, size, size))
        self.pictures = noise.astype(np.uint8)
        self.masks = np.zeros((count, size, size), np.int32)
        y, x = np.mgrid[:size, :size]
        for picture, mask in zip(self.pictures, self.masks, strict=True):
            for _ in range(3):
                label, radius = random.integers(1, 4), random.integers(size // 8, size // 4)
                right, down = x - random.integers(size), y - random.integers(size)
                inside = {
                    1: right**2 + down**2 <= radius**2,
                    2: np.maximum(abs(right), abs(down)) <= 0.8 * radius,
                    3: (abs(down) <= radius) & (2 * abs(right) <= down + radius),
                }[int(label)]
                colour = COLOURS[label - 1] + random.integers(-60, 60, 3)
                colour = colour[:, None] + random.integers(-40, 40, inside.sum())
                picture[:, inside], mask[inside] = np.clip(colour, 0, 255), label

    def __len__(self):
        return len(self.masks)

    def __getitem__(self, index):
        return self.pictures[index], self.masks[index]

    def __getitems__(self, indices):
        return self.pictures[indices], self.masks[indices]


def unet(x, feat_dims=(8, 16, 32), classes=4, *, params=None, key=None, train=False):
    """Gives every pixel a class: coarser features inform the finer ones (arXiv:1505.04597).

    Args:
        x: (batch, channels, height, width); height and width are multiples of
            2 ** (len(feat_dims) - 1).
        feat_dims: number of features at each resolution, each half of the one before.
        classes: number of classes.

    Returns:
        logits: (batch, height, width, classes)
        params: the network's parameters
    """
    layer = Layers(params, key, train)
    x, finer = jnp.moveaxis(x, 1, -1), []
    for level, features in enumerate(feat_dims):
        if level:
            finer.append(x)
            x = layer(f"pool{level}", max_pool, x, 2)
        x = layer(f"down{level}", block, x, features)
    for level, features in reversed(list(enumerate(feat_dims[:-1]))):
        x = enlarge(layer(f"wide{level}", linear, x, 4 * features))
        x = layer(f"up{level}", block, jnp.concatenate([finer[level], x], -1), features)
    return layer("head", linear, x, classes), layer.params


def block(x, features, *, params=None, key=None, train=False):
    """Two convolutions of 3 x 3 pixels, (batch, height, width, channels)."""
    layer = Layers(params, key, train)
    for name in ("first", "second"):
        x = layer(name, conv2d, x, features, 3)
        x = gelu(layer(f"{name}_norm", layer_norm, x))
    return x, layer.params


def enlarge(x):
    """Doubles height and width: four features become a square of four pixels."""
    batch, height, width, features = x.shape
    x = x.reshape(batch, height, width, 2, 2, features // 4).swapaxes(2, 3)
    return x.reshape(batch, 2 * height, 2 * width, features // 4)
