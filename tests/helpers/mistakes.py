"""Networks, losses and data sets as newcomers write them, each with a mistake."""

import jax
import jax.numpy as jnp
import numpy as np

from data_loader.dataloader import IdxImages
from model.modules import Layers, dropout, linear

seen = []


def for_other_pictures(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    x = x.reshape(len(x), 3 * 32 * 32)
    return layer("head", linear, x, 10), layer.params


def output_alone(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    return layer("head", linear, x.reshape(len(x), -1), 10)


def old_params(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    return layer("head", linear, x.reshape(len(x), -1), 10), params


def key_forgotten(x, *, params=None, key=None, train=False):
    layer = Layers(params, None, train)
    return layer("head", linear, x.reshape(len(x), -1), 10), layer.params


def key_not_passed_on(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    x = layer("head", linear, x.reshape(len(x), -1), 10)
    return dropout(x, 0.5, params={}, train=train)[0], layer.params


def without_train(x, *, params=None, key=None):
    layer = Layers(params, key, False)
    return layer("head", linear, x.reshape(len(x), -1), 10), layer.params


def with_numpy(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    return layer("head", linear, np.asarray(x).reshape(len(x), -1), 10), layer.params


def with_if(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    if x.mean() > 0:
        x = -x
    return layer("head", linear, x.reshape(len(x), -1), 10), layer.params


def remembering(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    y = layer("head", linear, x.reshape(len(x), -1), 10)
    y = y + sum(one.mean() for one in seen)
    seen.append(y)
    return y, layer.params


def one_output(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    return layer("head", linear, x.reshape(len(x), -1), 1), layer.params


def growing(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    y = layer("head", linear, x.reshape(len(x), -1), 10)
    if train:
        y = y + layer.array("extra", (10,), jnp.zeros)
    return y, layer.params


def mean_loss(logits, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()


class FromOne(IdxImages):
    """Labels from 1 to 10."""

    def __init__(self, root, split):
        super().__init__(root, split)
        self.labels = self.labels + 1


class InputsAlone:
    """Returns no target."""

    def __init__(self, root, split):
        self.images = IdxImages(root, split).images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


class NoLength:
    """Has no length."""

    def __init__(self, root, split):
        pass

    def __getitem__(self, index):
        return np.zeros((1, 28, 28), np.uint8), 0


class WithNan(IdxImages):
    """One pixel of one image is NaN."""

    def __init__(self, root, split):
        super().__init__(root, split)
        self.images = self.images.astype(np.float32)
        self.images[17, 0, 3, 4] = np.nan


class Words(IdxImages):
    """Labels as text."""

    def __init__(self, root, split):
        super().__init__(root, split)
        self.labels = np.array(self.classes)[self.labels]


class FloatLabels(IdxImages):
    """Labels as floating-point numbers."""

    def __init__(self, root, split):
        super().__init__(root, split)
        self.labels = self.labels.astype(np.float32)
