"""Summarizes a classifier's predictions for the report: confusion matrix, mistakes, samples."""

import numpy as np

from training.report.calibration import calibrate, reliability_diagram
from training.report.images import data_uri, image_grid, image_of

MISTAKES = 25  # shown, the most confident ones
MATRIX_CLASSES = 50  # with more classes the most common confusions are listed instead
SAMPLES, CLASSES = 100, 30  # shown at most


def classify(predictions):
    """Returns (examples, classes) probabilities, the predicted classes and the classes' names.

    Raises:
        ValueError: the shapes do not match, or a target is not a class.
    """
    logits, targets = np.asarray(predictions.logits, np.float64), np.asarray(predictions.targets)
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"predictions: got logits of shape {logits.shape} and targets of shape "
            f"{targets.shape}, expected (examples, classes) and (examples,)."
        )
    count = logits.shape[1]
    if targets.size and not 0 <= targets.min() <= targets.max() < count:
        raise ValueError(
            f"predictions: got targets from {targets.min()} to {targets.max()}, "
            f"expected 0 to {count - 1}, as there are {count} logits."
        )
    with np.errstate(invalid="ignore"):  # of a network that diverged, the probabilities are NaN
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    names = range(count) if predictions.classes is None else predictions.classes
    return probabilities, logits.argmax(axis=1), [str(name) for name in names]


def summarize(predictions):
    """Returns what the template shows of the Predictions, as a dict."""
    probabilities, predicted, classes = classify(predictions)
    targets, images = np.asarray(predictions.targets), predictions.images
    image_at = images if callable(images) or images is None else images.__getitem__
    pairs, counts = np.unique(targets * len(classes) + predicted, return_counts=True)
    confidence = probabilities[np.arange(len(targets)), predicted]
    wrong = np.flatnonzero(predicted != targets)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")]  # NaN is sorted last
    calibration = calibrate(confidence, predicted == targets)
    return {
        "source": predictions.source,
        "examples": len(targets),
        "wrong": len(wrong),
        "classes": classes,
        "matrix": _matrix(pairs, counts, len(classes)) if len(classes) <= MATRIX_CLASSES else None,
        "confusions": _most_common(pairs, counts, classes),
        "mistakes": [
            {
                "index": i,
                "image": image_at and data_uri(image_at(i)),
                "predicted": classes[predicted[i]],
                "probability": float(confidence[i]),
                "target": classes[targets[i]],
            }
            for i in order[:MISTAKES].tolist()
        ],
        "calibration": calibration,
        "diagram": calibration and reliability_diagram(calibration),
        "samples": _class_samples(image_at, targets, classes),
    }


def _most_common(pairs, counts, classes):
    """The most frequent confusions, as (true class, predicted class, count)."""
    order = np.argsort(-counts, kind="stable")
    found = zip(*np.divmod(pairs[order], len(classes)), counts[order].tolist(), strict=True)
    confusions = [(classes[i], classes[j], count) for i, j, count in found if i != j]
    return confusions[:MISTAKES]


def _matrix(pairs, counts, classes):
    """Rows of (cells, recall), a cell being (count, heat from 0 to 1); and the precisions."""
    matrix = np.zeros((classes, classes), int)
    matrix.flat[pairs] = counts
    correct = matrix.diagonal()
    with np.errstate(invalid="ignore"):  # a class that never occurs, or is never predicted
        recall, precision = correct / matrix.sum(axis=1), correct / matrix.sum(axis=0)
    # The square root makes rare mistakes visible.
    heat = np.sqrt(matrix / max(1, (matrix - np.diag(correct)).max()))
    np.fill_diagonal(heat, np.nan_to_num(recall))
    cells = [
        list(zip(*row, strict=True)) for row in zip(matrix.tolist(), heat.tolist(), strict=True)
    ]
    return {"rows": list(zip(cells, recall.tolist(), strict=True)), "precision": precision.tolist()}


def _class_samples(image_at, targets, classes):
    """The first examples of each class, of many classes the first; [] if they are not images."""
    samples, per_class = [], min(10, max(3, SAMPLES // max(1, len(classes))))
    for label, name in enumerate(classes[:CLASSES] if image_at else ()):
        indices = np.flatnonzero(targets == label)
        images = [image_of(image_at(index)) for index in indices[:per_class].tolist()]
        if None in images:
            return []
        if images:
            counts = {"count": len(indices), "shown": len(images)}
            samples.append({"name": name, **counts, "image": image_grid(images)})
    return samples
