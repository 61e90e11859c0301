"""Exact running sums of the metrics that updates and evaluations measure."""

import base64

import numpy as np

from training.common.records import STD

LARGE = 1000  # numbers; a larger array is kept as bytes


class MetricAccumulator:
    """Running sums {name: (sum, weight)} of what update or evaluate measured, kept in float64.

    Args:
        sums: what `to_json` returned, to continue from.
    """

    def __init__(self, sums=None):
        self.sums = {
            name: (_from_json(total), _from_json(weight))
            for name, (total, weight) in (sums or {}).items()
        }

    def add(self, measured):
        """Adds one batch's {name: (sum, weight)}."""
        for name, (total, weight) in measured.items():
            total_before, weight_before = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (
                total_before + np.asarray(total, np.float64),
                weight_before + np.asarray(weight, np.float64),
            )

    def results(self, compute=None, prefix=""):
        """Returns {prefix + name: result}.

        A result is the mean, or for an aggregated metric what its `compute` returns. With several
        seeds (training.seeds) it is the mean of their results, and name + STD is the standard
        deviation of these.

        Args:
            compute: {name: (sum, weight) -> result} of the aggregated metrics.
            prefix: begins every name.
        """
        results = {}
        for name in sorted(self.sums, key=lambda name: not name.endswith("loss")):
            (total, weight), result_of = self.sums[name], (compute or {}).get(name, _mean)
            if weight.ndim == 0:
                results[prefix + name] = result_of(total, float(weight))
                continue
            pairs = zip(total, weight.tolist(), strict=True)  # one for each seed
            of_seeds = np.array([result_of(*pair) for pair in pairs])
            is_number = of_seeds.ndim == 1
            results[prefix + name] = float(of_seeds.mean()) if is_number else of_seeds.mean(0)
            if is_number:
                results[prefix + name + STD] = float(of_seeds.std(ddof=1))
        return results

    def to_json(self):
        """Returns the sums as JSON can hold them; `MetricAccumulator(sums)` restores every bit."""
        return {name: [_to_json(one) for one in pair] for name, pair in self.sums.items()}


def _to_json(array):
    """Returns a number or lists of numbers; of a large array its bytes, a thousand times faster."""
    if array.size < LARGE:
        return array.tolist()
    return {"shape": array.shape, "base64": base64.b64encode(array.tobytes()).decode()}


def _from_json(value):
    if not isinstance(value, dict):
        return np.asarray(value, np.float64)
    return np.frombuffer(base64.b64decode(value["base64"])).reshape(value["shape"])


def _mean(total, weight):
    return float(total) / weight if weight else float("nan")
