"""Networks and data sets that the tests name in configs."""

import os
import signal

import jax
import numpy as np

from data_loader.dataloader import IdxImages
from model.modules import Layers, batch_norm, dropout, linear


def network(x, features=16, *, params=None, key=None, train=False):
    """A network with everything a checkpoint has to hold: statistics, and keys for dropout."""
    layer = Layers(params, key, train)
    y = layer("hidden", linear, x.reshape(len(x), -1), features)
    y = jax.nn.relu(layer("norm", batch_norm, y))
    y = layer("drop", dropout, y, 0.2)
    return layer("out", linear, y, 10), layer.params


def negatives(samples):
    """A collate function: the pictures with black and white exchanged."""
    inputs, targets = zip(*samples, strict=True)
    return {"inputs": 255 - np.stack(inputs), "targets": np.stack(targets)}


def logarithm(x, *, params=None, key=None, train=False):
    """A network whose second layer takes the logarithm of what may be negative."""
    layer = Layers(params, key, train)
    y = layer("hidden", linear, x.reshape(len(x), -1), 16)
    y = layer("logarithm", _logarithm, y)
    return layer("out", linear, y, 10), layer.params


def root_of_zero(x, *, params=None, key=None, train=False):
    """A network that is finite, while the gradient of its first layer is not."""
    layer = Layers(params, key, train)
    y = layer("hidden", linear, x.reshape(len(x), -1), 16)
    y = layer("root", _root, y)
    return layer("out", linear, y, 10), layer.params


def _logarithm(x, *, params=None, key=None, train=False):
    return jax.numpy.log(x), {}


def _root(x, *, params=None, key=None, train=False):
    return jax.numpy.sqrt(x - x), {}


class Signalling(IdxImages):
    """Sends its own process a signal while the batch is read whose number SIGNAL_AT holds."""

    def __init__(self, root, split):
        super().__init__(root, split)
        self.reads = 0

    def __getitems__(self, indices):
        """Returns a batch, and sends the signal if it is the one."""
        number, _, at = os.environ.get("SIGNAL_AT", "").partition("@")
        if at and self.reads == int(at):
            os.kill(os.getpid(), getattr(signal, number))
        self.reads += 1
        return super().__getitems__(indices)


class Changing(IdxImages):
    """Has its pictures as uint8 in the first epoch of 8 batches, and as float32 from then on."""

    def __init__(self, root, split):
        super().__init__(root, split)
        self.reads = 0

    def __getitems__(self, indices):
        """Returns a batch; the first read of all makes the parameters."""
        self.reads += 1
        images, labels = super().__getitems__(indices)
        return images if self.reads <= 9 else images.astype(np.float32), labels


def unlucky(x, *, params=None, key=None, train=False):
    """A network that is not finite in a tenth of its updates, by its key."""
    layer = Layers(params, key, train)
    y = layer("luck", _luck, layer("hidden", linear, x.reshape(len(x), -1), 16))
    return layer("out", linear, y, 10), layer.params


def _luck(x, *, params=None, key=None, train=False):
    broken = train and jax.random.bernoulli(key, 0.1)
    return jax.numpy.where(broken, np.nan, x), {}
