"""Callbacks that tests name in configs, and what they left in a run."""

import os

import numpy as np

from tests.helpers.project import same_arrays
from tests.helpers.tracking import json_lines
from training.checkpoint.naming import latest
from training.checkpoint.reading import read
from training.common.trees import named_leaves


def hook(function, every, **args):
    """A callback of this file as a config names it."""
    return {"name": f"{__name__}:{function}", "args": args, "every": every}


def lines_with(folder, name):
    """The lines of a run's metrics.jsonl that have a number of this name."""
    return [line for line in json_lines(folder / "metrics.jsonl") if name in line]


def steps_with(folder, name):
    """Their steps."""
    return [line["step"] for line in lines_with(folder, name)]


def assert_same_run(one, other):
    """Compares the lines and the bits of two runs."""
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    for path in (latest(other), other / "checkpoint-best.params"):
        assert same_arrays(read(one / path.name)[0], read(path)[0])


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
