"""Exact running sums of what updates and evaluations measure."""

import base64

import numpy as np

STD = "_spread"
LARGE = 1000  # numbers


class MetricAccumulator:
    """Running sums {name: (sum, weight)} of what update or evaluate measured, kept in float64."""

    def __init__(self, sums=None):
        self.sums = {
            name: (_array(total), _array(weight)) for name, (total, weight) in (sums or {}).items()
        }

    def add(self, measured):
        """Adds one batch's {name: (sum, weight)}."""
        for name, (total, weight) in measured.items():
            before, weight_before = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (
                before + np.asarray(total, np.float64),
                weight_before + np.asarray(weight, np.float64),
            )

    def results(self, compute=None, prefix=""):
        """Returns {prefix + name: result}: the mean, or what a metric's `finish` makes.

        Of several copies (training.seeds) it is the mean of their results, and under the name with
        SPREAD behind it their standard deviation.
        """
        results = {}
        for name in sorted(self.sums, key=lambda name: not name.endswith("loss")):
            (total, weight), make = self.sums[name], (compute or {}).get(name, _mean)
            if weight.ndim == 0:
                results[prefix + name] = make(total, float(weight))
                continue
            copies = np.array([make(*one) for one in zip(total, weight.tolist(), strict=True)])
            results[prefix + name] = float(copies.mean()) if copies.ndim == 1 else copies.mean(0)
            if copies.ndim == 1:
                results[prefix + name + STD] = float(copies.std(ddof=1))
        return results

    def plain(self):
        """Returns the sums as JSON can hold them; `Sums(plain)` is the same to the bit."""
        return {name: [_plain(one) for one in pair] for name, pair in self.sums.items()}


def _plain(array):
    """A number, lists of them, or for a large array its bytes: a thousandth of the time."""
    if array.size < LARGE:
        return array.tolist()
    return {"shape": array.shape, "base64": base64.b64encode(array.tobytes()).decode()}


def _array(plain):
    if not isinstance(plain, dict):
        return np.asarray(plain, np.float64)
    return np.frombuffer(base64.b64decode(plain["base64"])).reshape(plain["shape"])


def _mean(total, weight):
    return float(total) / weight if weight else float("nan")
