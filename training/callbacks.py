"""Functions of a run that the config calls while it trains; see docs/callbacks.md.

    def show(run):
        run.log(largest=abs(run.params["stem"]["w"]).max())

`training.callbacks` lists them in the order of their calls, a name alone or with the rest:
`{"name": "show", "args": {}, "every": "500 steps"}`; by default every epoch.
"""

from training.common.trees import named_leaves
from utils import UserError, nearest


def stop_when(run, metric, above=None, below=None):
    """Stops training as soon as a metric is above or below a value.

    Args:
        run: the Run.
        metric: name of a number as in metrics.jsonl ("validation_accuracy").
        above: stop where the number is larger.
        below: stop where the number is smaller.
    """
    if (above is None) == (below is None):
        raise UserError("expected one of above and below")
    if metric not in run.metrics:
        hint, known = nearest(metric, run.metrics), ", ".join(run.metrics) or "nothing"
        raise UserError(f"no {metric!r} was measured{hint}; so far there is {known}")
    value = run.metrics[metric]
    if (value > above) if below is None else (value < below):  # NaN is neither
        run.stop(f"{metric} is {value:.6g}")


def log_weights(run):
    """Gives the trackers a histogram of each array of the network's parameters."""
    for name, array in named_leaves(run.params).items():
        run.log_histogram(f"weights/{name}", array)
