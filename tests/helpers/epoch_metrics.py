"""Metrics over the epoch as users write them, and what may be wrong with one."""

import numpy as np

from training.common.measure import Cells
from training.metrics import aggregated, over_the_epoch

SEEN = []  # (outputs, targets) of every call


@over_the_epoch
def spread(outputs, targets):
    SEEN.append((outputs, targets))
    return {"margin": np.ptp(outputs), "margin_of_0": np.ptp(outputs[:, 0])}


@over_the_epoch
def examples(outputs, targets):
    return len(targets)


@over_the_epoch
def failing(outputs, targets):
    return outputs[:, 10].mean()


@over_the_epoch
def a_text(outputs, targets):
    return "good"


@over_the_epoch
def called_examples(outputs, targets):
    return {"examples": 1.0}


def of_two(outputs, targets):
    """A metric of a batch whose values have names."""
    return {"first": outputs[:, 0], "both": outputs[:, :2]}


def a_vector(total, weight):
    return total / weight


@aggregated(a_vector)
def per_class(outputs, targets):
    return outputs


def _late(total, weight):
    return 1 / (weight < 40)  # of more examples: a failure


@aggregated(_late)
def failing_late(outputs, targets):
    return Cells(targets, (3,))
