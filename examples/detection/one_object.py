"""Detection of one object: its box and its class, so the targets and the outputs are dicts."""

import jax.numpy as jnp
import numpy as np
from jax.nn import gelu

from data_loader.dataloader import IdxImages
from model.modules import Layers, conv2d, layer_norm, linear
from training.loss import cross_entropy


class PlacedDigits:
    """Digits of MNIST somewhere in a larger picture: {"box": x0, y0, x1, y1 in pixels, "class"}.

    Args:
        root, split, download: see IdxImages.
        size: height and width of the picture.
    """

    def __init__(self, root, split, size=40, download=None):
        self.digits, self.size = IdxImages(root, split, download), size

    def __len__(self):
        return len(self.digits)

    def __getitem__(self, index):
        digit, label = self.digits[index]
        rows, columns = (np.flatnonzero(digit[0].any(axis)) for axis in (1, 0))
        digit = digit[0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        height, width = digit.shape
        random = np.random.default_rng(index)  # the same place whenever it is read
        top, left = random.integers(0, self.size - np.array(digit.shape) + 1)
        picture = random.integers(0, 60, (1, self.size, self.size)).astype(np.uint8)
        picture[0, top : top + height, left : left + width] |= digit
        box = np.array([left, top, left + width, top + height], np.float32)
        return picture, {"box": box, "class": label}


def detector(x, feat_dims=(8, 16, 32), classes=10, *, params=None, key=None, train=False):
    """Finds one object.

    Args:
        x: (batch, channels, height, width)
        feat_dims: number of features of each convolution, which halves height and width.
        classes: number of classes.

    Returns:
        {"box": (batch, 4) x0, y0, x1, y1 in pixels, "class": (batch, classes) logits}
        params: the network's parameters
    """
    layer = Layers(params, key, train)
    height, width = x.shape[-2:]
    x = jnp.moveaxis(x, 1, -1)
    for index, features in enumerate(feat_dims):
        x = layer(f"conv{index}", conv2d, x, features, 5, stride=2)
        x = gelu(layer(f"norm{index}", layer_norm, x))
    x = gelu(layer("hidden", linear, x.reshape(x.shape[0], -1), 128))
    box = layer("box", linear, x, 4) + 0.5  # at first in the middle
    box = box * jnp.array([width, height, width, height], jnp.float32)
    return {"box": box, "class": layer("class", linear, x, classes)}, layer.params


def box_and_class(outputs, targets, *, pixels=10.0):
    """Computes a loss of two parts, which are logged by name.

    Args:
        outputs: those of `detector`.
        targets: {"box": (batch, 4), "class": (batch,)}.
        pixels: mean error of the corners that counts as much as 1 nat.

    Returns:
        {"box": (batch,), "class": (batch,)}
    """
    error = jnp.abs(outputs["box"] - targets["box"]).mean(-1)
    return {"box": error / pixels, "class": cross_entropy(outputs["class"], targets["class"])}


def overlap(outputs, targets):
    """Returns intersection over union of the found and the true box, (batch,) in [0, 1]."""
    low = jnp.maximum(outputs["box"][:, :2], targets["box"][:, :2])
    high = jnp.minimum(outputs["box"][:, 2:], targets["box"][:, 2:])
    common = jnp.maximum(high - low, 0).prod(-1)
    areas = [jnp.maximum(one["box"][:, 2:] - one["box"][:, :2], 0).prod(-1)
             for one in (outputs, targets)]  # fmt: skip
    return common / jnp.maximum(sum(areas) - common, 1e-6)


def found(outputs, targets):
    """Returns 1 where the class is right and the boxes overlap by half, else 0, (batch,)."""
    right = outputs["class"].argmax(-1) == targets["class"]
    return (right & (overlap(outputs, targets) > 0.5)).astype(jnp.float32)
