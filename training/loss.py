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
import optax

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


def focal(logits, labels, *, gamma=2.0):
    """Computes the cross-entropy times (1 - probability of the right class)^gamma.

    Hard examples count more (Lin et al. 2017, https://arxiv.org/abs/1708.02002). Their alpha is
    training.class_weights; `sigmoid_focal_loss` of optax is the same for yes and no.

    Args:
        logits: (batch, ..., classes).
        labels: (batch, ...) integers in [0, classes).
        gamma: 0 gives the cross-entropy.

    Returns:
        (batch, ...) values.
    """
    value = cross_entropy(logits, class_labels(logits, labels))
    wrong = jnp.maximum(-jnp.expm1(-value), 1e-12)  # the root of 0 has no slope
    return wrong**gamma * value


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


def dice(logits, labels, *, smooth=1.0):
    """Computes 1 - the soft Dice coefficient of each example's mask, the mean over its classes.

    Milletari et al. 2016, https://arxiv.org/abs/1606.04797; by `optax.losses.dice_loss`.

    Args:
        logits: (batch, ..., classes); or (batch, ...) of a mask of yes and no.
        labels: (batch, ...) integers in [0, classes); or 0 and 1 in the shape of the logits.
        smooth: added to both sides of the fraction, so that an empty mask has a value.

    Returns:
        (batch,) values in [0, 1].
    """
    if labels.shape == logits.shape:
        return optax.losses.dice_loss(logits[..., None], labels[..., None], smooth=smooth)
    targets = jax.nn.one_hot(class_labels(logits, labels), logits.shape[-1])
    return optax.losses.dice_loss(logits, targets, smooth=smooth)


def info_nce(views, targets, *, weight=None, temperature=0.1):
    """Computes -log of the probability of an example's other view among all views of the batch.

    The NT-Xent loss of SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709), an InfoNCE.
    Padding is no negative example. The examples of a batch are compared across all devices, but
    within the pieces of it that training.accumulate makes.

    Args:
        views: (batch, 2, features), two views of each example; their lengths do not matter.
        targets: not used.
        weight: (batch,), 0 where an example is padding; None: none is.
        temperature: what the cosines are divided by.

    Returns:
        (batch,) values, the mean of both views.
    """
    count = len(views)
    lengths = jnp.sqrt(jnp.maximum(jnp.square(views).sum(-1, keepdims=True), 1e-12))
    flat = (views / lengths).swapaxes(0, 1).reshape(2 * count, -1)
    cosines = flat @ flat.T / temperature
    place = jnp.arange(2 * count)
    other = (place + count) % (2 * count)
    negative = place[:, None] != place[None, :]
    if weight is not None:
        negative &= jnp.tile(weight != 0, 2)[None, :]
    compared = negative | (other[:, None] == place[None, :])
    total = jax.nn.logsumexp(jnp.where(compared, cosines, -jnp.inf), axis=1)
    return (total - cosines[place, other]).reshape(2, count).mean(0)


def ctc(outputs, labels, *, blank=0):
    """Computes -log of the probability of a sequence of labels, however it is aligned.

    Graves et al. 2006, https://doi.org/10.1145/1143844.1143891; `ctc_loss` of optax.

    Args:
        outputs: (batch, time, classes) logits; or {"logits", "padding"}, the latter (batch, time),
            1 where a sequence has ended.
        labels: (batch, length) integers; a sequence that is shorter ends in `blank`.
        blank: the class of "no label".

    Returns:
        (batch,) values in nats.
    """
    outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
    logits = outputs["logits"]
    padding = outputs.get("padding", jnp.zeros(logits.shape[:2]))
    ended = (labels == blank).astype(jnp.float32)
    return optax.ctc_loss(logits, padding, labels, ended, blank_id=blank)
