"""A variational auto-encoder of digits (Kingma and Welling 2013, https://arxiv.org/abs/1312.6114)."""

import jax
import jax.numpy as jnp
import numpy as np

from data_loader.dataloader import IdxImages
from model.modules import Layers, as_float, linear
from training.loss import binary_cross_entropy


class Pictures:
    """Pictures of an IDX file; the target of each is the picture itself, from 0 to 1."""

    def __init__(self, root, split, download=None):
        self.digits = IdxImages(root, split, download)

    def __len__(self):
        return len(self.digits)

    def __getitem__(self, index):
        image, _ = self.digits[index]
        return image, np.asarray(image, np.float32) / 255


def vae(x, latent=16, features=256, *, params=None, key=None, train=False):
    """Encodes pictures as normal distributions, and decodes a point of each.

    In training the point is drawn, in evaluation it is the mean.

    Args:
        x: (batch, channels, height, width) pictures in [0, 1]
        latent: numbers that a picture is encoded as
        features: number of features of the hidden layers

    Returns:
        outputs: {"pictures": (batch, channels, height, width) logits, "mean": (batch, latent),
            "log_variance": (batch, latent)}
        params: {"encoder": ..., "decoder": ...}
    """
    layer = Layers(params, key, train)
    x = as_float(x, "batch", "channels", "height", "width")
    code = layer("encoder", encoder, x.reshape(x.shape[0], -1), latent, features)
    mean, log_variance = jnp.split(code, 2, axis=-1)
    point = mean
    if train:
        point += jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
    pictures = layer("decoder", decoder, point, x.shape[1:], features)
    return {"pictures": pictures, "mean": mean, "log_variance": log_variance}, layer.params


def encoder(x, latent, features, *, params=None, key=None, train=False):
    """Returns (batch, 2 * latent) means and log-variances of (batch, pixels) pictures."""
    layer = Layers(params, key, train)
    x = jax.nn.gelu(layer("first", linear, x, features))
    x = jax.nn.gelu(layer("second", linear, x, features))
    return layer("code", linear, x, 2 * latent), layer.params


def decoder(code, shape=(1, 28, 28), features=256, *, params=None, key=None, train=False):
    """Returns (batch, *shape) logits of pictures of (batch, latent) points."""
    layer = Layers(params, key, train)
    x = jax.nn.gelu(layer("first", linear, code, features))
    x = jax.nn.gelu(layer("second", linear, x, features))
    return layer("pixels", linear, x, int(np.prod(shape))).reshape(-1, *shape), layer.params


def elbo(outputs, targets, *, step, anneal=500):
    """Computes the bound on -log of the likelihood: what is lost, and what the code says.

    Args:
        outputs: those of `vae`.
        targets: (batch, channels, height, width) pictures in [0, 1].
        step: updates done.
        anneal: updates after which the second part counts in full (https://arxiv.org/abs/1511.06349).

    Returns:
        {"reconstruction": (batch,), "kl": (batch,)} in nats.
    """
    lost = binary_cross_entropy(outputs["pictures"], targets)
    mean, log_variance = outputs["mean"], outputs["log_variance"]
    kl = (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance).sum(-1) / 2
    share = jnp.minimum(step / anneal, 1.0)
    return {"reconstruction": lost.reshape(lost.shape[0], -1).sum(-1), "kl": share * kl}
