"""Metrics: `f(outputs, targets) -> per-example values` of shape (batch, ...).

The framework sums value times weight over all batches and divides once, so a mean is exact
whatever the batch sizes. A metric that is not a mean returns per-example statistics, and
`aggregated` declares how its result is computed from their weighted sum:

    @aggregated(lambda total, weight: total)
    def confusion_matrix(logits, labels): ...

A statistic that only counts may be `Cells(index, table)`: the cell of a table that each example
belongs to, in place of an array that is 0 everywhere else.
"""

import jax
import jax.numpy as jnp
import numpy as np

from training.common.labels import right_classes, same_shape
from training.common.measure import Cells, aggregated, finished_by, over_the_epoch  # noqa: F401


def accuracy(logits, labels):
    """Returns 1 where the most likely class is the right one, else 0.

    Args:
        logits: (batch, ..., classes).
        labels: (batch, ...) integers, or probabilities of the shape of the logits.

    Returns:
        (batch, ...) of 0.0 and 1.0.
    """
    labels, known = right_classes(logits, labels)
    return jnp.where(known, (logits.argmax(-1) == labels).astype(jnp.float32), jnp.nan)


def one_hot_accuracy(logits, targets):
    """Returns 1 where the most likely class is that of the largest target, else 0.

    Args:
        logits: (batch, ..., classes).
        targets: the same shape, one-hot or soft: a probability for each class.

    Returns:
        (batch, ...) of 0.0 and 1.0.
    """
    right = same_shape(logits, targets).argmax(-1)
    return (logits.argmax(-1) == right).astype(jnp.float32)


def binary_accuracy(logits, labels):
    """Returns 1 where yes or no is right, for each of several labels at once.

    Args:
        logits: (batch, ...), log-odds of "yes".
        labels: the same shape, 1 for "yes", 0 for "no".

    Returns:
        (batch, ...) of 0.0 and 1.0.
    """
    return ((logits > 0) == (same_shape(logits, labels) > 0.5)).astype(jnp.float32)


def top_k_accuracy(logits, labels, *, k=5):
    """Returns 1 where the right class is among the k most likely; ties go to the lower class.

    Args:
        logits: (batch, ..., classes).
        labels: (batch, ...) integers, or probabilities of the shape of the logits.
        k: number of guesses.

    Returns:
        (batch, ...) of 0.0 and 1.0.
    """
    labels, known = right_classes(logits, labels)
    _, guesses = jax.lax.top_k(logits, k)
    right = (guesses == labels[..., None]).any(-1).astype(jnp.float32)
    return jnp.where(known, right, jnp.nan)


def _counts(total, weight=None):
    tables = total.reshape(-1, *total.shape[-2:])  # one for each position, if there are any
    return tables[0] if len(tables) == 1 else tables.sum(0)


@aggregated(_counts)
def confusion_matrix(logits, labels):
    """Counts examples by right class (rows) and most likely class (columns).

    Args:
        logits: (batch, ..., classes).
        labels: (batch, ...) integers, or probabilities of the shape of the logits.

    Returns:
        Cells of (classes, classes), one for each label; aggregated: counts (classes, classes).
    """
    classes, (labels, known) = logits.shape[-1], right_classes(logits, labels)
    inside = (labels >= 0) & (labels < classes)
    cell = labels * classes + logits.argmax(-1).astype(jnp.int32)
    counts = None if known is True else jnp.where(known, 1.0, jnp.nan)
    return Cells(jnp.where(inside, cell, -1), (classes, classes), counts)


def _macro_f1(total, weight):
    counts = _counts(total)
    hits = np.diagonal(counts)
    total = counts.sum(0) + counts.sum(1)  # times predicted plus times present
    occurs = total != 0  # also where a count is NaN
    return float((2 * hits[occurs] / total[occurs]).mean()) if occurs.any() else 0.0


@aggregated(_macro_f1)
def macro_f1(logits, labels):
    """Computes the unweighted mean of the F1 scores of all classes that occur.

    The F1 score of a class is 2 hits / (times predicted + times present).

    Args:
        logits: (batch, ..., classes).
        labels: (batch, ...) integers, or probabilities of the shape of the logits.

    Returns:
        The statistics of `confusion_matrix`; aggregated: a number in [0, 1].
    """
    return confusion_matrix(logits, labels)
