"""A Flax NNX network in this project: https://flax.readthedocs.io."""

import jax.numpy as jnp
from flax import nnx


class CNN(nnx.Module):
    """Two convolutions and two linear layers, as its users write them with Flax NNX."""

    def __init__(self, features, classes, *, rngs):
        self.conv1 = nnx.Conv(1, features, (3, 3), strides=2, rngs=rngs)
        self.norm1 = nnx.BatchNorm(features, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(features, 2 * features, (3, 3), strides=2, rngs=rngs)
        self.norm2 = nnx.BatchNorm(2 * features, momentum=0.9, rngs=rngs)
        self.hidden = nnx.Linear(7 * 7 * 2 * features, 64, rngs=rngs)
        self.drop = nnx.Dropout(0.2)
        self.head = nnx.Linear(64, classes, rngs=rngs)

    def __call__(self, x, rngs=None):
        """Returns the logits, (batch, classes), of (batch, height, width, channels) images."""
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.relu(self.norm2(self.conv2(x)))
        x = nnx.relu(self.hidden(x.reshape(x.shape[0], -1)))
        return self.head(self.drop(x, rngs=rngs))


def cnn(x, features=16, classes=10, *, params=None, key=None, train=False):
    """Classifies (batch, 1, 28, 28) images with the network above, by this project's protocol."""
    if params is None:
        model = CNN(features, classes, rngs=nnx.Rngs(key))
    else:
        model = nnx.eval_shape(lambda: CNN(features, classes, rngs=nnx.Rngs(0)))  # makes no arrays
        nnx.update(model, params["weights"], params["stats"])
    model.set_attributes(deterministic=not train, use_running_average=not train)
    y = model(jnp.moveaxis(x, 1, -1), nnx.Rngs(key) if train else None)
    _, weights, stats, _ = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    return y, {"weights": nnx.to_pure_dict(weights), "stats": nnx.to_pure_dict(stats)}
