"""An Equinox network in this project: https://docs.kidger.site/equinox."""

from functools import partial

import equinox as eqx
import jax


class CNN(eqx.Module):
    """Two convolutions and two linear layers, as its users write them with Equinox."""

    conv1: eqx.nn.Conv2d
    norm1: eqx.nn.BatchNorm
    conv2: eqx.nn.Conv2d
    norm2: eqx.nn.BatchNorm
    hidden: eqx.nn.Linear
    drop: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, features, classes, key):
        keys = jax.random.split(key, 4)
        self.conv1 = eqx.nn.Conv2d(1, features, 3, stride=2, padding=1, key=keys[0])
        self.norm1 = eqx.nn.BatchNorm(features, "batch", mode="batch", momentum=0.9)
        self.conv2 = eqx.nn.Conv2d(features, 2 * features, 3, stride=2, padding=1, key=keys[1])
        self.norm2 = eqx.nn.BatchNorm(2 * features, "batch", mode="batch", momentum=0.9)
        self.hidden = eqx.nn.Linear(7 * 7 * 2 * features, 64, key=keys[2])
        self.drop = eqx.nn.Dropout(0.2)
        self.head = eqx.nn.Linear(64, classes, key=keys[3])

    def __call__(self, x, state, key):
        """Returns the logits, (classes,), of one (1, height, width) image, and the state."""
        x, state = self.norm1(self.conv1(x), state)
        x, state = self.norm2(self.conv2(jax.nn.relu(x)), state)
        x = jax.nn.relu(self.hidden(jax.nn.relu(x).reshape(-1)))
        return self.head(self.drop(x, key=key)), state


def cnn(x, features=16, classes=10, *, params=None, key=None, train=False):
    """Classifies (batch, 1, 28, 28) images with the network above, by this project's protocol."""
    make = partial(eqx.nn.make_with_state(CNN), features, classes)
    if params is None:
        weights, stats = eqx.filter(make(key), eqx.is_array)
        params = {"weights": weights, "stats": stats}
    model, _ = eqx.filter_eval_shape(lambda: make(jax.random.key(0)))  # makes no arrays
    model = eqx.nn.inference_mode(eqx.combine(params["weights"], model), not train)
    keys = jax.random.split(key, x.shape[0]) if train else None
    y, stats = jax.vmap(model, (0, None, 0), (0, None), "batch")(x, params["stats"], keys)
    return y, params | {"stats": stats}
