"""Whether a classifier is as often right as it is sure: reliability diagram, calibration error.

Guo et al. 2017, On Calibration of Modern Neural Networks (https://arxiv.org/abs/1706.04599): the
predictions are sorted into bins by their confidence, the probability of the predicted class, and
each bin's accuracy is held against its mean confidence.
"""

import math

import numpy as np

BINS = 15  # as in the paper
DEVIATIONS = 1.96  # of a normal distribution, to either side, that hold 95 % of it


def calibrate(confidence, right):
    """Returns the calibration of a classifier's predictions, or None if there are none.

    Args:
        confidence: (examples,) probability of the predicted class; what is not finite is left out.
        right: (examples,) bool, whether it was the true one.

    Returns:
        {"error": the expected calibration error, sum over bins of share of the examples times
        |accuracy - mean confidence|; "confidence", "accuracy": the means; "bins": a dict for each
        that holds anything, with "low" < confidence <= "high", "examples", "confidence",
        "accuracy" and its 95 % "interval"}
    """
    finite = np.isfinite(confidence)
    confidence, right = confidence[finite], right[finite]
    if confidence.size == 0:
        return None
    edges = np.linspace(0, 1, BINS + 1)
    places = np.searchsorted(edges[1:-1], confidence)
    bins = []
    for place in np.unique(places):
        inside = places == place
        count, hits = int(inside.sum()), int(right[inside].sum())
        bins.append({
            "low": float(edges[place]),
            "high": float(edges[place + 1]),
            "examples": count,
            "confidence": float(confidence[inside].mean()),
            "accuracy": hits / count,
            "interval": wilson(hits, count),
        })  # fmt: skip
    gaps = [one["examples"] * abs(one["accuracy"] - one["confidence"]) for one in bins]
    return {
        "error": sum(gaps) / confidence.size,
        "confidence": float(confidence.mean()),
        "accuracy": float(right.mean()),
        "bins": bins,
    }


def wilson(hits, count):
    """Returns the 95 % interval of a share of `hits` in `count` (Wilson 1927).

    https://doi.org/10.1080/01621459.1927.10502953
    """
    share, square = hits / count, DEVIATIONS**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    half *= DEVIATIONS / (1 + square / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def diagram(calibration):
    """Returns what the template draws of a calibration, in percent of the plot."""
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
