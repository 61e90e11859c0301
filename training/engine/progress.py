"""How far a run has come: its position in the data, its best epoch, and exact running sums."""

from dataclasses import dataclass, field

from training.tracking.metric_logger import MetricAccumulator
from utils import UserError


@dataclass
class Progress:
    """What a checkpoint has to hold beside the TrainState, so that a run resumes exactly."""

    epochs: int = 0  # finished ones
    batch: int = 0  # batches done of the current epoch
    best: float | None = None  # the monitored metric's best value so far
    since_best: int = 0  # epochs since then
    # The sums since the last line of the log, and since the epoch began.
    interval: MetricAccumulator = field(default_factory=MetricAccumulator)
    epoch: MetricAccumulator = field(default_factory=MetricAccumulator)
    files: dict = field(default_factory=dict)  # {name: bytes} of the logs, cut back to on resuming

    @classmethod
    def from_meta(cls, meta, where="the checkpoint"):
        """Returns the Progress that `meta` was made from; errors name its file, `where`."""
        try:
            sums = {name: MetricAccumulator(meta[name]) for name in ("interval", "epoch")}
            progress = cls(**meta | sums)
            counts = [progress.epochs, progress.batch, progress.since_best]
            counts += progress.files.values()
            best = 0 if progress.best is None else progress.best
            if all(type(one) is int and one >= 0 for one in counts) and type(best) in (int, float):
                return progress
        except (AttributeError, KeyError, TypeError, ValueError):
            pass
        raise UserError(f"{where}: does not say how far a run has come; name a run's checkpoint")

    def meta(self):
        """Returns it as plain numbers, lists and dicts."""
        sums = {name: getattr(self, name).to_json() for name in ("interval", "epoch")}
        return vars(self) | sums

    def position(self):
        """Returns (epochs finished,), or (epoch, its batches done) within one."""
        return (self.epochs + 1, self.batch) if self.batch else (self.epochs,)

    def end_epoch(self, results, monitor):
        """Counts a finished epoch with its results; returns whether it is the best so far."""
        self.epochs, self.batch = self.epochs + 1, 0
        self.interval, self.epoch = MetricAccumulator(), MetricAccumulator()
        sense, _, name = monitor.partition(" ")
        value = results[name]
        better = self.best is None or (value < self.best if sense == "min" else value > self.best)
        if not better or value != value:  # NaN is never the best
            self.since_best += 1
            return False
        self.best, self.since_best = value, 0
        return True

    def finished(self, settings):
        """Whether there is nothing left to train: all epochs are done, or it stopped early."""
        stopped = settings.early_stop is not None and self.since_best >= settings.early_stop
        return stopped or self.epochs >= settings.epochs
