"""How far a run has come: its position in the data, its best epoch, and exact running sums."""

import base64
from dataclasses import dataclass, field

import numpy as np

from utils import UserError

SPREAD = "_spread"
LARGE = 1000  # numbers


class Sums:
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

    def results(self, finish=None, prefix=""):
        """Returns {prefix + name: result}: the mean, or what a metric's `finish` makes.

        Of several copies (training.seeds) it is the mean of their results, and under the name with
        SPREAD behind it their standard deviation.
        """
        results = {}
        for name in sorted(self.sums, key=lambda name: not name.endswith("loss")):
            (total, weight), make = self.sums[name], (finish or {}).get(name, _mean)
            if weight.ndim == 0:
                results[prefix + name] = make(total, float(weight))
                continue
            copies = np.array([make(*one) for one in zip(total, weight.tolist(), strict=True)])
            results[prefix + name] = float(copies.mean()) if copies.ndim == 1 else copies.mean(0)
            if copies.ndim == 1:
                results[prefix + name + SPREAD] = float(copies.std(ddof=1))
        return results

    def plain(self):
        """Returns the sums as JSON can hold them; `Sums(plain)` is the same to the bit."""
        return {name: [_plain(one) for one in pair] for name, pair in self.sums.items()}


@dataclass
class Progress:
    """What a checkpoint has to hold beside the TrainState, so that a run goes on exactly."""

    epochs: int = 0  # finished ones
    batch: int = 0  # batches done of the epoch under way
    best: float | None = None  # the monitored figure's best value so far
    since_best: int = 0  # epochs since then
    interval: Sums = field(default_factory=Sums)  # since the last line of the log
    epoch: Sums = field(default_factory=Sums)  # since the epoch began
    files: dict = field(default_factory=dict)  # {name: bytes} of the logs, cut back to on resuming

    @classmethod
    def from_meta(cls, meta, where="the checkpoint"):
        """Returns the Progress that `meta` was made from.

        Raises:
            UserError: it was made from something else; `where` names its file.
        """
        try:
            sums = {name: Sums(meta[name]) for name in ("interval", "epoch")}
            progress = cls(**meta | sums)
            counts = [progress.epochs, progress.batch, progress.since_best]
            counts += progress.files.values()
            best = 0 if progress.best is None else progress.best
            if all(type(one) is int and one >= 0 for one in counts) and type(best) in (int, float):
                return progress
        except (AttributeError, KeyError, TypeError, ValueError):
            pass
        raise UserError(f"{where}: says nothing of how far a run has come; name a run's checkpoint")

    def meta(self):
        """Returns it as plain numbers, lists and dicts."""
        sums = {name: getattr(self, name).plain() for name in ("interval", "epoch")}
        return vars(self) | sums

    def position(self):
        """Returns (epochs finished,), or (epoch, its batches done) within one."""
        return (self.epochs + 1, self.batch) if self.batch else (self.epochs,)

    def end_epoch(self, results, monitor):
        """Notes that an epoch is finished; returns whether it is the best so far.

        Args:
            results: {name: value} of the epoch.
            monitor: "min NAME" or "max NAME".
        """
        self.epochs, self.batch = self.epochs + 1, 0
        self.interval, self.epoch = Sums(), Sums()
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
