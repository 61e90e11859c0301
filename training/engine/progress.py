"""How far a run has come: its position in the data, its best epoch, and exact running sums."""

import logging
import math
from dataclasses import dataclass, field

from training.tracking.metric_logger import MetricAccumulator
from utils import UserError

LOG = logging.getLogger("main")


@dataclass
class Progress:
    """What a checkpoint has to hold beside the TrainState, so that a run resumes exactly."""

    epochs: int = 0  # finished ones
    batch: int = 0  # batches done of the current epoch
    best: float | None = None  # the monitored metric's best value so far
    since_best: int = 0  # evaluations since then
    # The sums since the last line of the log, and since the epoch began.
    interval: MetricAccumulator = field(default_factory=MetricAccumulator)
    epoch: MetricAccumulator = field(default_factory=MetricAccumulator)
    files: dict = field(default_factory=dict)  # {name: bytes} of the logs, cut back to on resuming
    steps: int = 0  # updates done
    batch_size: int = 0  # of the last of them; 0: none is done
    batches_before: int = 0  # of this epoch, done before the batch size was changed
    examples_before: int = 0  # that were in them
    rates: dict = field(default_factory=dict)  # {group: learning rate of the last update, the next}
    data: list | None = None  # the loader's position in a stream
    handled: int = 0  # the last step after which all was done that was due: evaluation, callbacks
    metrics: dict = field(default_factory=dict)  # {name: number}, the latest; None: not finite
    stopped: str | None = None  # the reason that a callback gave for the end of the run

    @classmethod
    def from_meta(cls, meta, where="the checkpoint", arrays=None):
        """Returns the Progress that `meta` was made from; errors name its file, `where`.

        What `meta` put into its `arrays` is taken out of these; without them it is NaN.
        """
        try:
            sums = {name: MetricAccumulator(meta[name], arrays) for name in ("interval", "epoch")}
            progress = cls(**meta | sums)
            counts = [progress.epochs, progress.batch, progress.since_best, progress.steps]
            counts += [progress.batch_size, progress.batches_before, progress.examples_before]
            counts += [progress.handled]
            counts += progress.files.values()
            if isinstance(progress.best, float) and not math.isfinite(progress.best):
                progress.best = None  # of an older version
            numbers = [0 if progress.best is None else progress.best]
            for last, following in progress.rates.values():
                numbers += [last, following]
            numbers += [one for one in progress.metrics.values() if one is not None]
            whole = all(type(one) is int and one >= 0 for one in counts)
            text = progress.stopped is None or isinstance(progress.stopped, str)
            if whole and text and all(type(one) in (int, float) for one in numbers):
                return progress
        except (AttributeError, KeyError, TypeError, ValueError):
            pass
        raise UserError(f"{where}: does not say how far a run has come; name a run's checkpoint")

    def meta(self, arrays=None):
        """Returns it as plain numbers, lists and dicts; large sums go into `arrays`, a dict."""
        sums = {
            name: getattr(self, name).to_json(arrays, f"{name}/") for name in ("interval", "epoch")
        }
        return vars(self) | sums

    def remember_data(self, loader):
        """Takes over where a loader that reads a stream is."""
        if hasattr(loader, "position"):
            self.data = loader.position(self.epochs + 1, self.batch)

    def restore_data(self, loader):
        """Lets a loader that reads a stream go on where it was."""
        if self.data is not None:
            loader.restore(self.data)

    def position(self):
        """Returns (epochs finished,), or (epoch, its batches done) within one."""
        return (self.epochs + 1, self.batch) if self.batch else (self.epochs,)

    def examples(self):
        """Returns how many examples of this epoch are done."""
        return self.examples_before + (self.batch - self.batches_before) * self.batch_size

    def continue_with(self, loader):
        """Returns the training data's loader for what is left, if its batch size has changed too.

        Raises:
            UserError: the loader cannot begin an epoch behind its first examples.
        """
        if self.batch and self.batch_size not in (0, loader.batch_size):
            if not hasattr(loader, "continue_epoch"):
                raise UserError(
                    f"data_loader.train: batches of {loader.batch_size}, but this epoch was begun "
                    f"with {self.batch_size}, and {type(loader).__name__} cannot change that in "
                    "its middle; resume with that, or from a checkpoint at the end of an epoch"
                )
            self.examples_before = min(self.examples(), loader.examples)
            self.batches_before = self.batch
        self.batch_size = loader.batch_size
        if not self.batches_before:
            return loader
        return loader.continue_epoch(self.epochs + 1, self.batches_before, self.examples_before)

    def total_steps(self, loader, epochs, max_steps=None):
        """Returns the updates of the whole training: those done and those left.

        `loader` is what `continue_with` returned, `epochs` and `max_steps` are the config's.
        """
        if epochs is None:
            return max(self.steps, max_steps)
        left = epochs - self.epochs
        total = self.steps + self.batches(loader) - self.batch + (left - 1) * len(loader)
        total = max(self.steps, 1) if left < 1 else total
        return total if max_steps is None else max(self.steps, min(total, max_steps))

    def batches(self, loader):
        """Returns the number of batches in this epoch."""
        return loader.batches_in(self.epochs + 1) if self.batches_before else len(loader)

    def end_epoch(self, results, monitor):
        """Counts a finished epoch with its results; returns whether they are the best so far."""
        better = self.compare(results, monitor)
        self.epochs, self.batch = self.epochs + 1, 0
        self.batches_before, self.examples_before = 0, 0
        self.interval, self.epoch = MetricAccumulator(), MetricAccumulator()
        return better

    def compare(self, results, monitor):
        """Compares results with the best so far; returns whether they are better.

        Where what is monitored was not measured, there is nothing to compare.
        """
        sense, _, name = (monitor or "").partition(" ")
        if name not in results:
            return False
        value = results[name]
        if not math.isfinite(value):  # neither better nor worse than another
            LOG.warning(
                "epoch %d: %s is %s, so that it is not the best", self.epochs + 1, name, value
            )
            return False
        better = self.best is None or (value < self.best if sense == "min" else value > self.best)
        self.best, self.since_best = (value, 0) if better else (self.best, self.since_best + 1)
        return better

    def stopped_early(self, settings):
        """Whether `early_stop` evaluations were no better than an earlier one."""
        return settings.early_stop is not None and self.since_best >= settings.early_stop

    def finished(self, settings):
        """Whether nothing is left to train: all epochs or steps are done, or it was stopped."""
        return (
            self.stopped is not None
            or self.stopped_early(settings)
            or (settings.epochs is not None and self.epochs >= settings.epochs)
            or (settings.max_steps is not None and self.steps >= settings.max_steps)
        )

    def log_end(self, settings):
        """Logs why training stopped early, and why there is no best epoch."""
        name = (settings.monitor or "").partition(" ")[2]
        if self.stopped is not None:
            LOG.info("Stopped by a callback at step %d: %s", self.steps, self.stopped)
        elif self.stopped_early(settings):
            LOG.info(
                "Stopped early, in epoch %d, at step %d: for %d evaluations %s was no better than "
                "%s (training.early_stop)",
                self.position()[0], self.steps, self.since_best, name, self.best,
            )  # fmt: skip
        if name and self.best is None:
            LOG.warning("There is no best epoch: %s was never finite (training.monitor)", name)
