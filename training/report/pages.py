"""The pages of networks that are no classifiers: labels, masks, and values beside their targets.

Each is a function as `training.report` names them; the outputs are probabilities, or values.
"""

import numpy as np

from data_loader.masks import label_axis, mask_image, mask_of, overlay, palette
from training.report.charts import chart, histogram, scatter
from training.report.images import data_uri, image_of
from training.report.sections import Block, picture, table

LINES, WORST, MASKS, VALUES = 8, 10, 8, 6  # labels in a chart, examples, and values shown
POINTS = 1000  # of a curve or a scatter plot


def labels(inputs, probabilities, targets, *, names=None):
    """Precision and recall of each label at a probability of 0.5, and over all thresholds."""
    names = _names(names, probabilities.shape[-1])
    true, guess = targets > 0.5, probabilities >= 0.5
    rows, roc, precision_recall = [], {}, {}
    for index, name in enumerate(names):
        curve = ranking(probabilities[:, index], true[:, index])
        hits = int((true & guess)[:, index].sum())
        counts = int(true[:, index].sum()), int(guess[:, index].sum())
        rows.append({
            "label": name, "examples": counts[0], "predicted": counts[1], "right": hits,
            "precision": hits / counts[1] if counts[1] else "–",
            "recall": hits / counts[0] if counts[0] else "–",
            "AUROC": curve["auroc"], "average precision": curve["average_precision"],
        })  # fmt: skip
        if index < LINES:
            roc[f"run{index}"] = curve["roc"]
            precision_recall[f"run{index}"] = curve["precision_recall"]
    shown = {f"run{index}": name for index, name in enumerate(names[:LINES])}
    curves = [
        chart("true positives %", roc, 100, "false positives %", shown),
        chart("precision %", precision_recall, 100, "recall %", shown),
    ]
    blocks = [Block("charts", [one | {"dots": {}, "legend": shown} for one in curves])]
    return [*blocks, table(rows), *_worst(inputs, probabilities, true, names)]


def ranking(scores, true):
    """Returns AUROC, average precision and both curves of scores, in percent.

    Args:
        scores: (examples,).
        true: (examples,) bool.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of equal scores
    hits = np.cumsum(true[order])[last]
    others = last + 1 - hits
    positive, negative = max(1, hits[-1]), max(1, others[-1])
    recall, fall_out = np.append(0, hits / positive), np.append(0, others / negative)
    precision = hits / (last + 1)
    known = hits[-1] > 0 and others[-1] > 0
    every = -(-len(recall) // POINTS)
    return {
        "auroc": float(np.trapezoid(recall, fall_out)) if known else "–",
        "average_precision": float((np.diff(recall) * precision).sum()) if hits[-1] else "–",
        "roc": [*_pairs(100 * fall_out[::every], 100 * recall[::every]), (100, 100)],
        "precision_recall": _pairs(100 * recall[1:][::every], 100 * precision[::every]),
    }


def _pairs(x, y):
    return list(zip(x.tolist(), y.tolist(), strict=True))


def masks(inputs, probabilities, targets, *, names=None):
    """Pictures, their masks, and those that are predicted; the overlap of both (IoU) by class."""
    first = _pixels(inputs, 0)
    if probabilities.shape == targets.shape:
        size = targets.shape[-2:] if first is None else first.shape[1:]
        count = 1 if targets.ndim == 3 else targets.shape[1:][label_axis(targets.shape[1:], size)]
        names = ["none", *_names(names, count)]
        made, right = (
            np.stack([mask_of(one, "sigmoid", size) for one in both])
            for both in (probabilities, targets)
        )
    else:
        names = _names(names, probabilities.shape[-1], "class")
        made, right = probabilities.argmax(-1), targets
    known = (right >= 0) & (right < len(names))  # what is not is ignored
    right = np.where(known, right, 0)
    colours = ["#{:02x}{:02x}{:02x}".format(*one) for one in palette(max(2, len(names)))]
    rows = []
    for index, name in enumerate(names):
        predicted, true = ((one == index) & known for one in (made, right))
        either = (predicted | true).sum()
        share = (predicted & true).sum() / either if either else "–"
        rows.append({"class": name, "pixels": int(true.sum()), "IoU": share})
    images = []
    for index in np.unique(np.linspace(0, len(made) - 1, min(MASKS, len(made))).astype(int)):
        pixels = _pixels(inputs, index)
        if pixels is not None:
            images.append((data_uri(pixels), "picture"))
        for mask, what in ((right[index], "target"), (made[index], "prediction")):
            laid = mask_image(mask).convert("RGB") if pixels is None else overlay(pixels, mask)
            images.append((picture(np.asarray(laid)), what))
    return [table(rows, colours[: len(names)]), Block("images", images)]


def regression(inputs, values, targets, *, names=None):
    """Predicted values over their targets, and how far they are off."""
    values, targets = (
        np.asarray(one, np.float64).reshape(len(one), -1) for one in (values, targets)
    )
    if values.shape[1] > VALUES:  # of a picture or a sequence: all its values together
        values, targets, names = values.reshape(-1, 1), targets.reshape(-1, 1), ["all values"]
    names = _names(names, values.shape[1], "value")
    charts, rows = [], []
    for index, name in enumerate(names):
        made, right = values[:, index], targets[:, index]
        off = made - right
        spread = np.square(right - right.mean()).sum()
        r2 = 1 - np.square(off).sum() / spread if spread else np.nan
        rows.append({
            "": name, "mean absolute error": np.abs(off).mean(),
            "root mean square error": np.sqrt(np.square(off).mean()), "R²": r2,
        })  # fmt: skip
        some = slice(None, None, -(-len(made) // POINTS))
        charts.append(scatter(f"{name}: predicted", right[some], made[some], "target", {"R²": r2}))
        charts.append(histogram(f"{name}: predicted - target", off, {"mean": off.mean()}))
    return [Block("charts", charts), table(rows)]


def _worst(inputs, probabilities, true, names):
    """The pictures whose labels are least likely, with what is predicted of them."""
    likelihood = np.where(true, probabilities, 1 - probabilities)
    with np.errstate(divide="ignore"):
        order = np.argsort(np.log(likelihood).sum(-1), kind="stable")[:WORST]
    shown = []
    for index in order.tolist():
        pixels = _pixels(inputs, index)
        if pixels is None:
            return []
        guessed = np.flatnonzero(probabilities[index] >= 0.5)
        made = [f"{names[one]} {probabilities[index, one]:.0%}" for one in guessed]
        right = [names[one] for one in np.flatnonzero(true[index])]
        caption = f"{', '.join(made) or 'none'}; true: {', '.join(right) or 'none'}"
        shown.append((data_uri(pixels), caption))
    return [Block("images", shown)]


def _pixels(inputs, index):
    """The picture of an example, (1 or 3, height, width) uint8, or None."""
    leaves = list(inputs.values()) if isinstance(inputs, dict) else [inputs]
    for leaf in leaves:
        image = image_of(leaf[index]) if hasattr(leaf, "dtype") else None
        if image is not None:
            pixels = np.asarray(image)
            return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return None


def _names(names, count, what="label"):
    if names is not None and len(names) == count:
        return list(map(str, names))
    return [what] if count == 1 else [f"{what} {index}" for index in range(count)]
