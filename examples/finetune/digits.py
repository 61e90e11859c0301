"""Fine-tuning: a network that knows the digits 0 to 4 learns 5 to 9 from a few examples.

Everything that the two configs name besides the template's own: the data set and the network.
"""

import jax
import numpy as np

from data_loader.dataloader import IdxImages
from model.modules import Layers, batch_norm, conv2d, dropout, global_average_pool, linear


class SomeDigits:
    """The images of MNIST that show some digits; the label is a digit's place among them.

    Args:
        root: folder of MNIST's files.
        split: "train" or "test".
        digits: which ones, such as [5, 6, 7, 8, 9].
        each: number of examples of each digit, the first in the files; None for all.
        scale: 2 makes coloured pictures of twice the size, for networks that were trained on such;
            None leaves them as they are.

    Attributes:
        classes: names of the digits.
        labels: (examples,) int32.
    """

    def __init__(self, root, split, digits, each=None, scale=None):
        self.images, self.scale = IdxImages(root, split), scale
        targets = np.asarray(self.images.labels)
        of_each = [np.flatnonzero(targets == digit)[:each] for digit in digits]
        self.indices = np.sort(np.concatenate(of_each))
        self.labels = np.searchsorted(digits, targets[self.indices]).astype(np.int32)
        self.classes = [str(digit) for digit in digits]

    def __len__(self):
        """Returns the number of examples."""
        return len(self.indices)

    def __getitem__(self, index):
        """Returns an image, (1, 28, 28) uint8, and its label."""
        images, labels = self.__getitems__(np.array([index]))
        return images[0], labels[0]

    def __getitems__(self, indices):
        """Returns images, (batch, 1, 28, 28) uint8, and labels, (batch,)."""
        images, _ = self.images.__getitems__(self.indices[indices])
        if self.scale is not None:
            images = images.repeat(3, 1).repeat(self.scale, 2).repeat(self.scale, 3)
        return images, self.labels[indices]


def convnet(x, features=(16, 32, 64), classes=5, *, params=None, key=None, train=False):
    """Classifies images with convolutions and batch normalisation.

    Args:
        x: (batch, channels, height, width) images
        features: number of features of each convolution; the last is the body, the others the stem
        classes: number of classes

    Returns:
        logits: (batch, classes)
        params: stem, body, hidden and head
    """
    layer = Layers(params, key, train)
    y = layer("stem", convolutions, x.transpose(0, 2, 3, 1), features[:-1], first=1)
    y = layer("body", convolutions, y, features[-1:])
    y = layer("pool", global_average_pool, y)
    y = jax.nn.relu(layer("hidden", linear, y, 64))
    y = layer("drop", dropout, y, 0.2)
    return layer("head", linear, y, classes), layer.params


def convolutions(x, features, first=2, *, params=None, key=None, train=False):
    """Computes features of images with 3x3 convolutions, each of which halves height and width.

    Args:
        x: (batch, height, width, channels)
        features: number of features of each
        first: stride of the first
    """
    layer = Layers(params, key, train)
    for index, count in enumerate(features):
        stride = 2 if index else first
        x = layer(f"conv{index}", conv2d, x, count, 3, stride=stride, bias=False)
        x = jax.nn.relu(layer(f"norm{index}", batch_norm, x))
    return x, layer.params
