"""Calibration of a classifier: reliability diagram and expected calibration error.

Guo et al. 2017, On Calibration of Modern Neural Networks (https://arxiv.org/abs/1706.04599): the
predictions are sorted into bins by their confidence, the probability of the predicted class, and
each bin's accuracy is compared with its mean confidence.
"""

import math

import numpy as np

BINS = 15  # as in the paper
Z_95 = 1.96  # standard deviations to either side of a normal mean that cover 95 %


def calibrate(confidence, correct):
    """Returns the calibration of a classifier's predictions as a dict, or None if there are none.

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
