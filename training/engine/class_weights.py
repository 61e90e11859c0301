"""Weights for the classes (`training.class_weights`): they multiply the weight of each example.

Only training is weighted: its losses and metrics are sum(weight * value) / sum(weight). The figures
of validation and test count every example once.
"""

import logging

import jax.numpy as jnp
import numpy as np

from utils import UserError

LOG = logging.getLogger("main")


def class_weights(wanted, loader, where):
    """Returns the weights, (classes,) float32, or None.

    Args:
        wanted: "auto", a number for each class, or None.
        loader: of the training data, whose labels "auto" counts.
        where: the key's place in the config.

    Raises:
        UserError: there is not one for each class, or the labels are no classes.
    """
    if wanted is None:
        return None
    names = getattr(loader, "classes", None)
    if wanted == "auto":
        return _balancing(loader.labels(), names, where)
    weights = np.asarray(wanted, np.float32)
    check_class_weights(weights, len(weights) if names is None else len(names), "classes", where)
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.any()):
        raise UserError(f"{where}: {wanted}; expected numbers of at least 0, and not all 0")
    return weights


def check_class_weights(weights, count, what, where="training.class_weights"):
    """Refuses weights of which there is not one for each class; `what` there are `count` of."""
    if weights is not None and len(weights) != count:
        raise UserError(
            f"{where}: {len(weights)} weights, but there are {count} {what}; expected one for each"
        )


def weigh_classes(batch, weights):
    """Returns a batch, the weight of each example multiplied by that of its class.

    `batch` has "targets", (batch, ...) integers, and "weight", as many axes or fewer.
    """
    targets, weight = batch["targets"], batch["weight"]
    if not hasattr(targets, "dtype") or not jnp.issubdtype(targets.dtype, jnp.integer):
        got = f"{targets.dtype} {targets.shape}" if hasattr(targets, "dtype") else "a dict"
        raise UserError(
            f"training.class_weights: the targets of a batch are {got}; expected classes, integers"
        )
    weight = weight.reshape(weight.shape + (1,) * (targets.ndim - weight.ndim))
    return batch | {"weight": weight * jnp.asarray(weights)[targets]}


def _balancing(labels, names, where):
    """Returns examples / (classes * examples of the class), of (examples,) integer labels."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f'{where}: "auto", but the targets are {labels.dtype} {labels.shape}; expected a class '
            "for each example, an integer. Give a number for each class"
        )
    count = labels.max() + 1 if names is None else len(names)
    if not 0 <= labels.min() <= labels.max() < count:
        raise UserError(
            f'{where}: "auto", but the labels go from {labels.min()} to {labels.max()}; expected 0 '
            f"to {count - 1}, a class of the data set. Give a number for each class"
        )
    counts = np.bincount(labels, minlength=count)
    for index in np.flatnonzero(counts == 0):
        name = index if names is None else repr(names[index])
        LOG.warning("training.class_weights: class %s has no example to train with", name)
    return (len(labels) / (count * np.maximum(counts, 1))).astype(np.float32)
