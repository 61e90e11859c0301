"""A Flax Linen network in this project: https://flax-linen.readthedocs.io."""

import jax.numpy as jnp
from flax import linen as nn


class CNN(nn.Module):
    """Two convolutions and two linear layers, as its users write them with Flax Linen."""

    features: int
    classes: int

    @nn.compact
    def __call__(self, x, train):
        """Returns the logits, (batch, classes), of (batch, height, width, channels) images."""
        for features in (self.features, 2 * self.features):
            x = nn.Conv(features, (3, 3), strides=2)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.relu(nn.Dense(64)(x.reshape(x.shape[0], -1)))
        x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(self.classes)(x)


def cnn(x, features=16, classes=10, *, params=None, key=None, train=False):
    """Classifies (batch, 1, 28, 28) images with the network above, by this project's protocol."""
    model, x = CNN(features, classes), jnp.moveaxis(x, 1, -1)
    if params is None:
        variables = model.init(key, x, train=False)
        params = {"weights": variables["params"], "stats": variables["batch_stats"]}
    variables = {"params": params["weights"], "batch_stats": params["stats"]}
    rngs = {"dropout": key} if train else None
    y, updated = model.apply(variables, x, train, rngs=rngs, mutable=["batch_stats"])
    return y, params | {"stats": updated["batch_stats"]}
