"""Metrics that are more than a mean, by the names that a config gives.

Those that can be summed are `aggregated`, and cost as little as the accuracy; the others are
`over_the_epoch`. A class has no value, NaN and null in metrics.jsonl, where nothing of it occurs
(F1, IoU, Dice) or all or none is of it (AUROC, average precision); the mean is that of the others,
and of no class NaN. The log warns of each.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from training.common.labels import class_labels, right_classes, same_shape
from training.common.measure import aggregated, over_the_epoch
from training.common.outputs import softmax
from training.metrics import confusion_matrix

MOST_NAMED = 20  # classes that have a number of their own in the log
BINS = 15  # of confidence


def _of_classes(name, values):
    """Returns {name: mean of those that have a value, name_0: ..., name_1: ...}."""
    known = values[~np.isnan(values)]
    found = {name: float(known.mean()) if len(known) else np.nan}
    if len(values) <= MOST_NAMED:
        found |= {f"{name}_{index}": float(one) for index, one in enumerate(values)}
    return found


def _share(hits, total):
    with np.errstate(invalid="ignore"):  # of a class that does not occur
        return hits / total


def _f1(hits, total, name="f1"):
    """Returns the F1 scores from (classes,) hits, and times predicted plus times present."""
    micro = {f"{name}_micro": float(_share(2 * hits.sum(), total.sum()))}
    found = _of_classes(f"{name}_macro", _share(2 * hits, total))
    return micro | {key.replace("_macro_", "_"): one for key, one in found.items()}


def _of_table(total):
    """Returns hits, and times predicted plus times present, of a confusion matrix."""
    counts = confusion_matrix.compute(total, None)
    return np.diagonal(counts), counts.sum(0) + counts.sum(1)


def _of_labels(total):
    """Returns the same of the sums that `multilabel_f1` makes."""
    hits, predicted, present = total.reshape(-1, *total.shape[-2:]).sum(0)
    return hits, predicted + present


@aggregated(lambda total, weight: _f1(*_of_table(total)))
def f1(logits, labels):
    """Computes the F1 score of each class: f1_macro, f1_micro (the accuracy), f1_0, f1_1, ...

    Args:
        logits: (batch, ..., classes).
        labels: (batch, ...) integers, or probabilities of the shape of the logits.
    """
    return confusion_matrix(logits, labels)


@aggregated(lambda total, weight: _f1(*_of_labels(total)))
def multilabel_f1(logits, labels):
    """Computes the F1 score of each of several labels at once: f1_macro, f1_micro, f1_0, ...

    Args:
        logits: (batch, ..., labels), log-odds.
        labels: the same shape, 1 for "yes", 0 for "no".
    """
    right, guess = same_shape(logits, labels) > 0.5, logits > 0
    return jnp.stack([right & guess, guess, right], -2).astype(jnp.float32)


@aggregated(lambda total, weight: _iou(*_of_table(total)))
def iou(logits, labels):
    """Computes intersection over union of each class over the data set: iou, iou_0, iou_1, ...

    Args:
        logits: (batch, ..., classes), such as of each pixel.
        labels: (batch, ...) integers.
    """
    return confusion_matrix(logits, labels)


def _iou(hits, total):
    return _of_classes("iou", _share(hits, total - hits))


@aggregated(lambda total, weight: _of_classes("dice", _share(*_doubled(*_of_table(total)))))
def dice(logits, labels):
    """Computes the Dice coefficient of each class over the data set: dice, dice_0, dice_1, ...

    Args:
        logits: (batch, ..., classes), such as of each pixel.
        labels: (batch, ...) integers.
    """
    return confusion_matrix(logits, labels)


def _doubled(hits, total):
    return 2 * hits, total


@aggregated(lambda total, weight: float(np.divide(total[0], total[1:].sum() - total[0])))
def binary_iou(logits, labels):
    """Computes intersection over union of masks of yes and no, over the data set.

    Args:
        logits: (batch, ...), log-odds.
        labels: the same shape, 1 for "yes", 0 for "no".
    """
    return _of_masks(logits, labels)


@aggregated(lambda total, weight: float(np.divide(2 * total[0], total[1:].sum())))
def binary_dice(logits, labels):
    """Computes the Dice coefficient of masks of yes and no, over the data set.

    Args:
        logits: (batch, ...), log-odds.
        labels: the same shape, 1 for "yes", 0 for "no".
    """
    return _of_masks(logits, labels)


def _of_masks(logits, labels):
    right, guess = same_shape(logits, labels) > 0.5, logits > 0
    counts = [one.reshape(len(one), -1).sum(1) for one in (right & guess, guess, right)]
    return jnp.stack(counts, -1).astype(jnp.float32)


@aggregated(lambda total, weight: float(np.exp(total.sum() / (weight * total.size))))
def perplexity(logits, labels):
    """Computes e to the power of the mean cross-entropy.

    Args:
        logits: (batch, ..., classes).
        labels: (batch, ...) integers.
    """
    labels = class_labels(logits, labels)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def _calibration_error(total, weight):
    confident, right = total.reshape(-1, 2, BINS).sum(0)
    return float(np.abs(confident - right).sum() / (weight * total.size / (2 * BINS)))


@aggregated(_calibration_error)
def expected_calibration_error(logits, labels):
    """Computes the mean distance of confidence and accuracy in 15 bins of confidence.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599, as in the report.

    Args:
        logits: (batch, ..., classes).
        labels: (batch, ...) integers, or probabilities of the shape of the logits.
    """
    labels, known = right_classes(logits, labels)
    confidence = jax.nn.softmax(logits).max(-1)
    inside = jnp.clip(jnp.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(jnp.int32)
    right = jnp.where(known, (logits.argmax(-1) == labels).astype(jnp.float32), jnp.nan)
    share = jax.nn.one_hot(inside, BINS)
    return jnp.stack([share * confidence[..., None], share * right[..., None]], -2)


def _scores(outputs, targets):
    """Returns (examples, classes) scores, and bools: whether an example is of the class."""
    if outputs.shape == targets.shape:  # yes and no, of one thing or of several labels
        width = 1 if outputs.ndim == 1 else outputs.shape[-1]
        return outputs.reshape(-1, width), targets.reshape(-1, width) > 0.5
    labels = class_labels(outputs, targets).reshape(-1)
    scores = softmax(outputs.reshape(-1, outputs.shape[-1]))
    return scores, labels[:, None] == np.arange(scores.shape[1])


def _ranking(name, outputs, targets, value_of):
    """Returns {name: mean, name_0: ...} of a function of the scores and the truth of each class."""
    scores, truths = _scores(outputs, targets)
    values = np.array([value_of(*pair) for pair in zip(scores.T, truths.T, strict=True)])
    if len(values) == 2 and outputs.shape != targets.shape:
        return {name: float(values[1])}  # yes and no as two classes: that of the second, "yes"
    return _of_classes(name, values) if len(values) > 1 else {name: float(values[0])}


def _ranks(values):
    """Returns ranks from 1 up; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place.reshape(-1)]


@over_the_epoch
def auroc(outputs, targets):
    """Computes the area under the ROC curve: of yes and no, of each class against the others.

    The probability that an example of the class has the higher score than another one (Hanley and
    McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747).

    Args:
        outputs: (examples,) log-odds with targets of 0 and 1; (examples, labels) with the same; or
            (examples, classes) logits with integers, one class against the rest.
        targets: as above.

    Returns:
        {"auroc": mean over the classes, "auroc_0": ...}, or {"auroc": number} of yes and no.
    """

    def area(scores, truth):
        yes, no = np.count_nonzero(truth), np.count_nonzero(~truth)
        if not (yes and no):
            return np.nan
        return (_ranks(scores)[truth].sum() - yes * (yes + 1) / 2) / (yes * no)

    return _ranking("auroc", outputs, targets, area)


@over_the_epoch
def average_precision(outputs, targets):
    """Computes the mean precision over the recall; its mean over classes is called mAP.

    Args:
        outputs: as of `auroc`.
        targets: as of `auroc`.

    Returns:
        {"average_precision": mean over the classes, "average_precision_0": ...}, or the number of
        yes and no.
    """

    def precision(scores, truth):
        if not truth.any():
            return np.nan
        order = np.argsort(-scores, kind="stable")
        last = np.append(np.diff(scores[order]) != 0, True)  # of equal scores
        found = np.cumsum(truth[order])[last]
        precisions = found / (np.flatnonzero(last) + 1)
        return (np.diff(found, prepend=0) * precisions).sum() / found[-1]

    return _ranking("average_precision", outputs, targets, precision)


def _columns(outputs, targets):
    """Yields float64 outputs and targets of each number that is predicted."""
    targets = same_shape(outputs, targets)
    width = 1 if outputs.ndim == 1 else outputs.shape[-1]
    pair = (one.reshape(-1, width).astype(np.float64).T for one in (outputs, targets))
    return list(zip(*pair, strict=True))


def _correlation(first, second):
    first, second = first - first.mean(), second - second.mean()
    length = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / length) if length > 0 else np.nan


@over_the_epoch
def r2(outputs, targets):
    """Computes the share of the targets' variance that is explained, the mean over columns.

    Args:
        outputs: (examples,) or (examples, columns).
        targets: the same shape; NaN where those of a column are all the same.
    """
    values = []
    for predicted, right in _columns(outputs, targets):
        spread = np.square(right - right.mean()).sum()
        left = np.square(right - predicted).sum()
        values.append(1 - left / spread if spread > 0 else np.nan)
    return float(np.mean(values))


@over_the_epoch
def pearson(outputs, targets):
    """Computes the linear correlation, the mean over columns.

    Args:
        outputs: (examples,) or (examples, columns).
        targets: the same shape; NaN where one of both is constant.
    """
    return float(np.mean([_correlation(*pair) for pair in _columns(outputs, targets)]))


@over_the_epoch
def spearman(outputs, targets):
    """Computes the correlation of the ranks, the mean over columns.

    Args:
        outputs: (examples,) or (examples, columns).
        targets: the same shape; NaN where one of both is constant.
    """
    columns = _columns(outputs, targets)
    return float(np.mean([_correlation(*map(_ranks, pair)) for pair in columns]))
