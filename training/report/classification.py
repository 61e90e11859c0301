"""Turns a classifier's predictions into what the report shows: confusions, mistakes, samples."""

import numpy as np

from training.report.calibration import calibrate
from training.report.images import picture, samples

MISTAKES = 25  # shown, the most confident ones
MATRIX_CLASSES = 50  # with more classes the commonest confusions are listed instead


def decide(predictions):
    """Returns the probabilities, the predicted classes and the classes' names.

    Args:
        predictions: `training.report.Predictions`.

    Raises:
        ValueError: the shapes do not fit, or a target is no class.
    """
    logits, targets = np.asarray(predictions.logits, np.float64), np.asarray(predictions.targets)
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"predictions: logits of shape {logits.shape} and targets of shape {targets.shape} "
            "came, expected (examples, classes) and (examples,)."
        )
    count = logits.shape[1]
    if targets.size and not 0 <= targets.min() <= targets.max() < count:
        raise ValueError(
            f"predictions: targets from {targets.min()} to {targets.max()} came, "
            f"expected 0 to {count - 1}, as there are {count} logits."
        )
    with np.errstate(invalid="ignore"):  # a network that diverged says NaN, and so do we
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
    names = range(count) if predictions.classes is None else predictions.classes
    return chances, logits.argmax(axis=1), [str(name) for name in names]


def judge(predictions):
    """Returns what the template shows of the predictions, as a dict.

    Args:
        predictions: `training.report.Predictions`.
    """
    chances, predicted, classes = decide(predictions)
    targets, images = np.asarray(predictions.targets), predictions.images
    look = images if callable(images) or images is None else images.__getitem__
    pairs, counts = np.unique(targets * len(classes) + predicted, return_counts=True)
    confidence = chances[np.arange(len(targets)), predicted]
    wrong = np.flatnonzero(predicted != targets)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")]  # NaN comes last
    return {
        "source": predictions.source,
        "examples": len(targets),
        "wrong": len(wrong),
        "classes": classes,
        "matrix": _matrix(pairs, counts, len(classes)) if len(classes) <= MATRIX_CLASSES else None,
        "confusions": _commonest(pairs, counts, classes),
        "mistakes": [
            {
                "index": i,
                "picture": look and picture(look(i)),
                "predicted": classes[predicted[i]],
                "probability": float(confidence[i]),
                "target": classes[targets[i]],
            }
            for i in order[:MISTAKES].tolist()
        ],
        "calibration": calibrate(confidence, predicted == targets),
        "samples": samples(look, targets, classes),
    }


def _commonest(pairs, counts, classes):
    """The confusions that occur most, as (true class, predicted class, count)."""
    confusions = []
    for place in np.argsort(-counts, kind="stable"):
        target, predicted = divmod(int(pairs[place]), len(classes))
        if target != predicted:
            confusions.append((classes[target], classes[predicted], int(counts[place])))
        if len(confusions) == MISTAKES:
            break
    return confusions


def _matrix(pairs, counts, classes):
    """Rows of (cells, recall), a cell being (count, heat from 0 to 1); and the precisions."""
    matrix = np.zeros((classes, classes), int)
    matrix.flat[pairs] = counts
    right = matrix.diagonal()
    with np.errstate(invalid="ignore"):  # a class that never occurs, or is never predicted
        recall, precision = right / matrix.sum(axis=1), right / matrix.sum(axis=0)
    heat = np.sqrt(matrix / max(1, (matrix - np.diag(right)).max()))  # the root shows rare mistakes
    np.fill_diagonal(heat, np.nan_to_num(recall))
    cells = [
        list(zip(*row, strict=True)) for row in zip(matrix.tolist(), heat.tolist(), strict=True)
    ]
    return {"rows": list(zip(cells, recall.tolist(), strict=True)), "precision": precision.tolist()}
