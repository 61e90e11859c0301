"""A generative adversarial network: a generator of digits, and a discriminator of its images.

The generator makes images from noise; the discriminator distinguishes them from real ones. Each is
trained against the other (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661), here by two
optimizer groups of the config: each names a loss and the parameters that it trains. One forward
pass serves both, so the two are updated in the same step.
"""

import jax
import jax.numpy as jnp

from model.modules import Layers, as_float, conv2d, layer_norm, linear, located
from training.loss import binary_cross_entropy

EVALUATION_SEED = 0  # of the noise in evaluation, which is always the same
SLOPE = 0.2  # of the leaky ReLU below zero


def gan(
    x,
    noise_size=64,
    generator_features=64,
    discriminator_features=16,
    *,
    params=None,
    key=None,
    train=False,
):
    """Generates as many images as it is given, and classifies both as real or generated.

    Args:
        x: (batch, channels, height, width) real images in [-1, 1]; sides are multiples of 4
        noise_size: number of normally distributed numbers from which an image is made
        generator_features: number of features of the generator's first layer
        discriminator_features: number of features of the discriminator's first layer

    Returns:
        outputs: {"real": (batch,) logits of the real images being real, "fake": (batch,) of the
            generated ones, "images": (batch, channels, height, width) the generated ones}
        params: {"generator": ..., "discriminator": ...}

    Raises:
        ValueError: `train=True` without a key.
    """
    layer = Layers(params, key, train)
    x = as_float(x, "batch", "channels", "height", "width")
    if train and key is None:
        raise ValueError(
            "gan: in training the noise needs a key. "
            "Call outputs, params = gan(x, params=params, key=jax.random.key(0), train=True)."
        )
    noise_key = key if train else jax.random.key(EVALUATION_SEED)
    noise = jax.random.normal(noise_key, (x.shape[0], noise_size), x.dtype)
    images = layer("generator", generator, noise, x.shape[1:], generator_features)
    both = jnp.concatenate([x, images])
    logits = layer("discriminator", discriminator, both, discriminator_features)
    real, fake = jnp.split(logits, 2)
    return {"real": real, "fake": fake, "images": images}, layer.params


def generator(noise, shape, features=64, *, params=None, key=None, train=False):
    """Makes images from noise.

    Args:
        noise: (batch, noise size)
        shape: (channels, height, width) of an image; height and width are multiples of 4
        features: number of features of its first layer, at a quarter of the height and width

    Returns:
        images: (batch, channels, height, width) in [-1, 1]
        params: the generator's parameters

    Raises:
        ValueError: height or width is not a multiple of 4.
    """
    layer = Layers(params, key, train)
    channels, height, width = shape
    if height % 4 or width % 4:
        raise ValueError(
            f"{located('generator')}: images of {height} x {width} pixels, "
            "expected multiples of 4. Crop or pad them."
        )
    x = layer("seed", linear, noise, height // 4 * (width // 4) * features)
    x = x.reshape(-1, height // 4, width // 4, features)
    x = jax.nn.relu(layer("seed_norm", layer_norm, x))
    x = enlarge(layer("conv", conv2d, x, features, 3))
    x = jax.nn.relu(layer("norm", layer_norm, x))
    x = enlarge(layer("image", conv2d, x, 4 * channels, 3))
    return jnp.moveaxis(jnp.tanh(x), -1, 1), layer.params


def discriminator(x, features=16, *, params=None, key=None, train=False):
    """Classifies images as real or generated.

    Args:
        x: (batch, channels, height, width) in [-1, 1]
        features: number of features of its first layer

    Returns:
        logits: (batch,) log-odds of an image being real
        params: the discriminator's parameters
    """
    layer = Layers(params, key, train)
    x = jnp.moveaxis(x, 1, -1)
    for index, width in enumerate((features, 4 * features)):
        x = layer(f"conv{index}", conv2d, x, width, 4, stride=2)
        x = jax.nn.leaky_relu(x, SLOPE)
    logits = layer("head", linear, x.reshape(x.shape[0], -1), 1)
    return logits[:, 0], layer.params


def enlarge(x):
    """Doubles height and width: four features become a square of four pixels.

    Shi et al. 2016, https://arxiv.org/abs/1609.05158. On a CPU much faster than a transposed
    convolution.

    Args:
        x: (batch, height, width, 4 * channels)

    Returns: (batch, 2 * height, 2 * width, channels)
    """
    batch, height, width, features = x.shape
    x = x.reshape(batch, height, width, 2, 2, features // 4).swapaxes(2, 3)
    return x.reshape(batch, 2 * height, 2 * width, features // 4)


def generator_loss(outputs, targets):
    """Computes -log of the discriminator's probability that a generated image is real.

    Args:
        outputs: those of `gan`.
        targets: unused.

    Returns:
        (batch,) values in nats.
    """
    return binary_cross_entropy(outputs["fake"], 1.0)


def discriminator_loss(outputs, targets):
    """Computes -log of the probability of the right answer, for a real and a generated image.

    Args:
        outputs: those of `gan`.
        targets: unused.

    Returns:
        (batch,) values in nats; 2 log 2 = 1.386 for a discriminator that guesses.
    """
    return binary_cross_entropy(outputs["real"], 1.0) + binary_cross_entropy(outputs["fake"], 0.0)


def fooled(outputs, targets):
    """Returns 1 where the discriminator takes the generated image for a real one, else 0.

    Args:
        outputs: those of `gan`.
        targets: unused.

    Returns:
        (batch,) of 0.0 and 1.0.
    """
    return (outputs["fake"] > 0).astype(jnp.float32)
