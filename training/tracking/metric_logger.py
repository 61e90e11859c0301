"""The console's lines and the tracked figures, made from what updates and evaluations measured."""

import logging
import time
from collections import deque

import jax
import numpy as np

from training.common.errors import NonFiniteError
from training.common.timing import timed
from training.common.trees import pick
from training.tracking.accumulator import STD, MetricAccumulator

# How far the host may be ahead of the device: more gains nothing, and Ctrl-C waits for all of it.
IN_FLIGHT = 8  # calls
LEAD = 0.045  # seconds of work beside the call that is running
LOG = logging.getLogger("main")


class MetricLogger:
    """Adds up what was measured, and writes the lines that are due.

    What updates measure is read one log interval late: by then it is there, and the host never
    keeps the device waiting.

    Args:
        progress: the run's Progress, whose sums it keeps.
        tracker: the Tracker it hands figures to.
        parts: what `build` returned.
        log_interval: batches between two lines.
    """

    def __init__(self, progress, tracker, experiment, log_interval):
        self._progress, self._tracker, self._finish = progress, tracker, experiment.aggregates
        self._batches, self._log_interval = len(experiment.loaders["train"]), log_interval
        self._steps_per_call = experiment.steps_per_call
        self._before, self._now = [], []  # (batches, measured) of the last interval and of this one
        self._running, self._most, self._waited = deque(), 1, None

    @timed("device")
    def limit_in_flight(self):
        """Waits until the device has little enough to do for another call to be handed to it."""
        finished = 0
        while len(self._running) >= self._most:
            self._running.popleft().block_until_ready()
            finished += 1
        if finished:
            now = time.perf_counter()
            if self._waited:
                seconds = (now - self._waited) / finished  # of a call
                self._most = min(1 + int(LEAD / seconds), IN_FLIGHT)
            self._waited = now

    @timed("logging")
    def add(self, measured, batches=1):
        """Takes what the update of the next batch, or batches, measured, without waiting for it."""
        first = self._progress.batch
        self._progress.batch += batches
        done = range(first, self._progress.batch)
        self._now.append((done, measured))
        self._running.append(measured["finite"])
        if any(batch % self._log_interval == 0 for batch in done):
            before, self._before, self._now = self._before, self._now, []
            self._settle(before)

    @timed("logging")
    def flush(self):
        """Waits for all that was added and brings the sums and the log up to date.

        Raises:
            NotFinite: at the first batch whose loss or gradient is not.
        """
        entries, self._before, self._now = self._before + self._now, [], []
        self._running.clear()
        self._waited = None  # what comes between two epochs is no call's time
        self._settle(entries)

    @timed("logging")
    def end_epoch(self, evaluated):
        """Logs an epoch's results, those of its training with the evaluated ones; returns them."""
        epoch = self._progress.epochs + 1
        results = self._progress.epoch.results(self._finish, "epoch_train_") | evaluated
        for name, value in results.items():
            split, _, figure = name.removeprefix("epoch_").partition("_")
            if _is_rate(figure) or name.endswith(STD) or not isinstance(value, float):
                continue
            value = _with_spread(results, name)
            if not figure.endswith("loss"):
                LOG.info("Epoch %d [%s] %s @ %s", epoch, split, figure, value)
            elif split != "train":
                LOG.info("Epoch %d [%s] avg %s: %s", epoch, split, _title(figure), value)
        self._tracker.log({"step": epoch * self._batches, "epoch": epoch} | results)
        return results

    def _settle(self, entries):
        progress = self._progress
        for batch, measured in self._each(entries):
            if not measured.pop("finite").all():
                raise NonFiniteError(batch)
            progress.interval.add(measured)
            progress.epoch.add(measured)
            if batch % self._log_interval == 0:
                self._line(batch, progress.interval.results(self._finish))
                progress.interval = MetricAccumulator()

    def _each(self, entries):
        """Yields the number of each batch and what was measured of it, on the host."""
        fetched = _fetch([measured for _, measured in entries])
        for (batches, _), measured in zip(entries, fetched, strict=True):
            for step, batch in enumerate(batches):
                yield batch, measured if self._steps_per_call == 1 else pick(measured, step)

    def _line(self, batch, results):
        epoch, percent = self._progress.epochs + 1, 100 * batch / self._batches
        losses = ", ".join(
            f"{_title(name)}: {_with_spread(results, name)}"
            for name in results
            if name.endswith("loss")
        )
        LOG.info("Epoch %d [%d/%d (%.0f%%)] -- %s", epoch, batch, self._batches, percent, losses)
        step = (epoch - 1) * self._batches + batch + 1
        figures = {
            name if _is_rate(name) else f"train_{name}": value for name, value in results.items()
        }
        self._tracker.log({"step": step, "epoch": epoch, "batch": batch} | figures)


@timed("device")
def _fetch(tree):
    """Returns the tree on the host; to begin every copy ahead pays where there is a way to go."""
    if jax.default_backend() == "cpu":
        return jax.tree.map(np.asarray, tree)
    return jax.device_get(tree)


def _title(name):
    return "Loss" if name == "loss" else name


def _with_spread(results, name):
    spread = results.get(name + STD)
    return results[name] if spread is None else f"{results[name]} ± {spread:.2g}"


def _is_rate(name):
    return name.removesuffix(STD).endswith(("gradient_norm", "learning_rate"))
