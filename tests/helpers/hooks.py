"""Callbacks that tests name in configs."""

import os

import numpy as np

from training.common.trees import named_leaves


def weigh(run, called="weights"):
    """Logs the sum of all parameters, and how many metrics there are."""
    total = sum(float(np.asarray(leaf).sum()) for leaf in named_leaves(run.params).values())
    run.log(**{called: total, f"{called}_metrics": len(run.metrics)})


def stop_at(run, step):
    """Stops the run from a step on."""
    if run.step >= step:
        run.stop(f"step {run.step}")


def fail_at(run, step):
    """Fails at a step, unless HEALTHY is set."""
    run.log(before=1.0)
    if run.step == step and "HEALTHY" not in os.environ:
        raise OSError("the disk of the callback is full")


def log_odd(run, value):
    """Logs what is given."""
    run.log(odd=float("nan") if value == "nan" else value)


def draw(run, kind):
    """Gives the trackers an image: "right", "whole", "flat"."""
    images = {
        "right": np.zeros((4, 5), np.uint8),
        "whole": np.ones((4, 5), int),
        "flat": np.ones(4),
    }
    run.log_image("drawn", images[kind])
    run.log_text("said", "words")
    run.log_histogram("spread", [1.0, float("nan"), 2.0])


def with_two(run, other):
    """Is called with more than the run."""


def without(*, other=None):
    """Takes no run."""


async def later(run):
    """Is not called at once."""


class OfARun:
    """A class."""

    def __init__(self, run):
        """Takes the run."""


def stop_by_process(run, first, others):
    """Stops from a step on, which is another one in the processes that do not write."""
    if run.step >= (others if run.folder is None else first):
        run.stop(f"process {'other' if run.folder is None else 'first'}")
    run.log(called=run.step)
