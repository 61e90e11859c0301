"""A Haiku network in this project: https://dm-haiku.readthedocs.io."""

import haiku as hk
import jax
import jax.numpy as jnp


def logits(x, features, classes, train):
    """Two convolutions and two linear layers, as its users write them with Haiku.

    Returns the logits, (batch, classes), of (batch, height, width, channels) images.
    """
    for size in (features, 2 * features):
        x = hk.Conv2D(size, 3, stride=2)(x)
        x = jax.nn.relu(hk.BatchNorm(True, True, decay_rate=0.9)(x, train))
    x = jax.nn.relu(hk.Linear(64)(hk.Flatten()(x)))
    if train:
        x = hk.dropout(hk.next_rng_key(), 0.2, x)
    return hk.Linear(classes)(x)


def cnn(x, features=16, classes=10, *, params=None, key=None, train=False):
    """Classifies (batch, 1, 28, 28) images with the network above, by this project's protocol."""
    network, x = hk.transform_with_state(logits), jnp.moveaxis(x, 1, -1)
    if params is None:
        weights, stats = network.init(key, x, features, classes, True)
    else:
        weights, stats = params["weights"], params["stats"]
    y, stats = network.apply(weights, stats, key, x, features, classes, train)
    return y, {"weights": weights, "stats": stats}
