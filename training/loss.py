"""Losses: `f(outputs, targets) -> per-example values` of shape (batch, ...).

They do not average and do not mask; the update weighs the examples and averages. A loss of several
parts returns `{name: values}`: each part is logged, their sum is trained. What else a loss needs it
names after a *, and is given:

    step    updates done; evaluation gives `training.common.measure.EVALUATED_STEP`
    key     random key of the step; in evaluation always the same
    params  of the network; they are trained through this, too
    train   whether this is training
    weight  (batch, ...), 0 where an example is padding

A config can also name any loss of optax with this signature.
"""

import jax
import jax.numpy as jnp

from training.common.labels import are_probabilities, class_labels, same_shape, sums_to_one


def cross_entropy(logits, labels, *, label_smoothing=0.0, train=True):
    """Computes -log of the probability of the right class.

    Args:
        logits: (batch, ..., classes), unnormalised log-probabilities.
        labels: (batch, ...) integers in [0, classes); or floats of the shape of the logits, the
            probability of each class.
        label_smoothing: part of the target probability that is spread evenly over all classes
            (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567), in training alone.
        train: whether this is training.

    Returns:
        (batch, ...) values in nats; NaN for no class, and for probabilities that do not sum to 1.
    """
    smoothing = label_smoothing if train else 0.0
    if are_probabilities(logits, labels):
        log_probabilities = jax.nn.log_softmax(logits)
        products = jnp.where(labels == 0, 0.0, labels * log_probabilities)
        right = jnp.where(sums_to_one(labels), products.sum(-1), jnp.nan)
    else:
        labels = class_labels(logits, labels)
        labels = jnp.where(labels < 0, logits.shape[-1], labels)  # no class gives NaN, -1 as well
        log_probabilities = jax.nn.log_softmax(logits)
        right = jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]
    if smoothing:
        right = (1 - smoothing) * right + smoothing * log_probabilities.mean(-1)
    return -right


def binary_cross_entropy(logits, labels):
    """Computes -log of the probability of the label, yes or no; stable for large logits.

    Args:
        logits: (batch, ...), log-odds of "yes".
        labels: (batch, ...) in [0, 1], 1 for "yes".

    Returns:
        (batch, ...) values in nats.
    """
    if jnp.ndim(labels):
        labels = same_shape(logits, labels)
    return jnp.maximum(logits, 0) - logits * labels + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def mean_squared_error(outputs, targets):
    """Computes the squared error, averaged over all axes but the first.

    Args:
        outputs: (batch, ...).
        targets: the same shape.

    Returns:
        (batch,) values.
    """
    error = outputs - same_shape(outputs, targets)
    return jnp.square(error).reshape(len(outputs), -1).mean(-1)


def mean_absolute_error(outputs, targets):
    """Computes the absolute error, averaged over all axes but the first.

    Args:
        outputs: (batch, ...).
        targets: the same shape.

    Returns:
        (batch,) values.
    """
    error = outputs - same_shape(outputs, targets)
    return jnp.abs(error).reshape(len(outputs), -1).mean(-1)
