"""Networks and data sets that the tests name in configs."""

import os
import signal

import jax
import numpy as np

from data_loader.dataloader import IdxImages
from model.modules import Layers, batch_norm, dropout, linear
from training.distributed.preemption import StopSignal


def network(x, features=16, *, params=None, key=None, train=False):
    """A network with all that a checkpoint contains: statistics, and keys for dropout."""
    layer = Layers(params, key, train)
    y = layer("hidden", linear, x.reshape(len(x), -1), features)
    y = jax.nn.relu(layer("norm", batch_norm, y))
    y = layer("drop", dropout, y, 0.2)
    return layer("out", linear, y, 10), layer.params


def negatives(samples):
    """A collate function: the images with black and white exchanged."""
    inputs, targets = zip(*samples, strict=True)
    return {"inputs": 255 - np.stack(inputs), "targets": np.stack(targets)}


def logarithm(x, *, params=None, key=None, train=False):
    """A network whose second layer takes the logarithm of negative numbers, too."""
    layer = Layers(params, key, train)
    y = layer("hidden", linear, x.reshape(len(x), -1), 16)
    y = layer("logarithm", _logarithm, y)
    return layer("out", linear, y, 10), layer.params


def root_of_zero(x, *, params=None, key=None, train=False):
    """A network with finite outputs, but a gradient of its first layer that is not finite."""
    layer = Layers(params, key, train)
    y = layer("hidden", linear, x.reshape(len(x), -1), 16)
    y = layer("root", _root, y)
    return layer("out", linear, y, 10), layer.params


def _logarithm(x, *, params=None, key=None, train=False):
    return jax.numpy.log(x), {}


def _root(x, *, params=None, key=None, train=False):
    return jax.numpy.sqrt(x - x), {}


class Signalling(IdxImages):
    """Sends its own process a signal while reading a batch: SIGNAL_AT=SIGNAL@NUMBER.

    The first batch that is trained on is number 1. What is read before training does not count: no
    StopSignal would catch the signal.
    """

    def __init__(self, root, split):
        super().__init__(root, split)
        self.reads = 0

    def __getitems__(self, indices):
        """Returns a batch, and sends the signal if it has that number."""
        handler = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        self.reads += isinstance(handler, StopSignal)
        number, _, at = os.environ.get("SIGNAL_AT", "").partition("@")
        if at and self.reads == int(at) and isinstance(handler, StopSignal):
            os.kill(os.getpid(), getattr(signal, number))
        return super().__getitems__(indices)


class Changing(IdxImages):
    """Returns images as uint8 in the first epoch of 8 batches, and as float32 afterwards."""

    def __init__(self, root, split):
        super().__init__(root, split)
        self.reads = 0

    def __getitems__(self, indices):
        """Returns a batch; the very first one is read to initialise the parameters.

        A few examples that are read to look at their labels do not count.
        """
        self.reads += len(indices) > 100
        images, labels = super().__getitems__(indices)
        return images if self.reads <= 9 else images.astype(np.float32), labels


def unlucky(x, *, params=None, key=None, train=False):
    """A network that is not finite in a tenth of its updates, depending on the key."""
    layer = Layers(params, key, train)
    y = layer("luck", _luck, layer("hidden", linear, x.reshape(len(x), -1), 16))
    return layer("out", linear, y, 10), layer.params


def _luck(x, *, params=None, key=None, train=False):
    broken = train and jax.random.bernoulli(key, 0.1)
    return jax.numpy.where(broken, np.nan, x), {}
