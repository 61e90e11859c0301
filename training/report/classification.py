"""Summarizes a classifier's predictions: confusion matrix, mistakes, calibration, samples."""

import math

import numpy as np

from training.report.images import data_uri, image_grid, image_of
from utils import printable

MISTAKES = 25  # shown, the most confident ones
MATRIX_CLASSES = 50  # with more classes the most common confusions are listed instead
SAMPLES, CLASSES = 100, 30  # shown at most
BLOCK = 2**20  # probabilities that are computed at a time
BINS = 15  # of confidence, as in the paper
Z_95 = 1.96  # standard deviations to either side of a normal mean that cover 95 %


def classify(predictions):
    """Returns the predicted classes, their probabilities and the classes' names.

    Raises:
        ValueError: the shapes do not match, or a target is not a class.
    """
    targets = np.asarray(predictions.targets)
    if targets.dtype.kind not in "biu":
        raise ValueError(f"predictions: got targets of {targets.dtype}, expected whole numbers.")
    if predictions.top is not None:
        (top, chances), names = predictions.top, predictions.classes
        return top[:, 0], chances[:, 0].astype(np.float64), [printable(name) for name in names]
    logits = np.asarray(predictions.logits)
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
    names = range(count) if predictions.classes is None else predictions.classes
    predicted = logits.argmax(axis=1)
    return predicted, _confidence(logits, predicted), [printable(name) for name in names]


def probabilities(logits):
    """Yields the probabilities of some rows after the others, so that they take little memory.

    Args:
        logits: (examples, classes).

    Yields:
        A slice of the examples, and their (rows, classes) probabilities, float64.
    """
    count = max(1, BLOCK // logits.shape[1])
    for start in range(0, len(logits), count):
        rows = slice(start, start + count)
        part = logits[rows].astype(np.float64)
        with np.errstate(invalid="ignore"):  # of a network that diverged, they are NaN
            part -= part.max(axis=1, keepdims=True)
            np.exp(part, out=part)
            part /= part.sum(axis=1, keepdims=True)
        yield rows, part


def _confidence(logits, predicted):
    """The probability of each example's predicted class."""
    found = np.empty(len(logits))
    for rows, part in probabilities(logits):
        found[rows] = part[np.arange(len(part)), predicted[rows]]
    return found


def summarize(predictions):
    """Returns what the template shows of the Predictions, as a dict."""
    predicted, confidence, classes = classify(predictions)
    # Of a small type, the products below would overflow.
    targets, images = np.asarray(predictions.targets).astype(np.int64), predictions.images
    image_at = images if callable(images) or images is None else images.__getitem__
    pairs, counts = np.unique(targets * len(classes) + predicted, return_counts=True)
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
                "index": i if predictions.indices is None else int(predictions.indices[i]),
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


def calibrate(confidence, correct):
    """Returns the calibration of a classifier's predictions as a dict, or None if there are none.

    Guo et al. 2017, On Calibration of Modern Neural Networks (https://arxiv.org/abs/1706.04599):
    the predictions are sorted into bins by their confidence, the probability of the predicted
    class, and each bin's accuracy is compared with its mean confidence.

    "error" is the expected calibration error, the sum over bins of the share of the examples times
    |accuracy - mean confidence|. "bins" has those that are not empty: "low" < confidence <= "high".

    Args:
        confidence: (examples,) probability of the predicted class; non-finite ones are left out.
        correct: (examples,) bool, whether the predicted class is the true one.
    """
    finite = np.isfinite(confidence)
    confidence, correct = confidence[finite], correct[finite]
    if confidence.size == 0:
        return None
    edges = np.linspace(0, 1, BINS + 1)
    bin_of = np.searchsorted(edges[1:-1], confidence)
    bins = []
    for index in np.unique(bin_of):
        inside = bin_of == index
        count, hits = int(inside.sum()), int(correct[inside].sum())
        bins.append({
            "low": float(edges[index]),
            "high": float(edges[index + 1]),
            "examples": count,
            "confidence": float(confidence[inside].mean()),
            "accuracy": hits / count,
            "interval": wilson_interval(hits, count),
        })  # fmt: skip
    gaps = [one["examples"] * abs(one["accuracy"] - one["confidence"]) for one in bins]
    return {
        "error": sum(gaps) / confidence.size,
        "confidence": float(confidence.mean()),
        "accuracy": float(correct.mean()),
        "bins": bins,
    }


def wilson_interval(hits, count):
    """Returns the 95 % confidence interval of a proportion, `hits` of `count` (Wilson 1927).

    https://doi.org/10.1080/01621459.1927.10502953
    """
    share, square = hits / count, Z_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    half *= Z_95 / (1 + square / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def reliability_diagram(calibration):
    """Returns what the template draws of a calibration, in percent of the plot's size."""
    bars, whiskers, dots, readouts, edge = [], [], [], [], 0.0
    for one in calibration["bins"]:
        left, right, accuracy = 100 * one["low"], 100 * one["high"], 100 * one["accuracy"]
        bars.append(f"M{left:.2f} 100V{100 - accuracy:.2f}H{right:.2f}V100Z")
        x, (low, high) = 100 * one["confidence"], one["interval"]
        whiskers.append(f"M{x:.2f} {100 - 100 * low:.2f}V{100 - 100 * high:.2f}")
        dots.append((x, 100 - accuracy))
        if left > edge:
            readouts.append({"width": left - edge, "bin": None})
        readouts.append({"width": right - left, "bin": one})
        edge = right
    return {
        "bars": "".join(bars),
        "whiskers": "".join(whiskers),
        "dots": dots,
        "ticks": range(0, 101, 20),
        "readouts": readouts,
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
