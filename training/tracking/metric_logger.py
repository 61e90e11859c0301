"""Exact running sums of what updates and evaluations measure, and the lines logged from them."""

import base64
import logging
import math
import time
from collections import deque

import jax
import numpy as np

from training.common.every import parse_every
from training.common.measure import Cells, FunctionError, named_numbers, with_names
from training.common.records import STD
from training.common.timing import timed
from training.common.trees import pick

# How far the host may be ahead of the device: more gains nothing, and Ctrl-C waits for all of it.
IN_FLIGHT = 8  # calls
LEAD = 0.045  # seconds of work queued behind the call that is running
READ_EVERY = 100  # batches at most between two readings, where lines are not logged by batches
MOST_HELD = 64 * 2**20  # bytes of what was measured of batches, until it is added up
LARGE = 1000  # numbers; a larger array is no JSON in a checkpoint
SUMS = "sums/"  # begins the names of such arrays
LOG = logging.getLogger("main")


class NonFiniteError(Exception):
    """An update met a loss or gradient that is not finite; `batch` is its index in the epoch."""

    def __init__(self, batch):
        super().__init__(batch)
        self.batch = batch


class MetricLogger:
    """Accumulates what updates measure, and logs a line every so many batches, or minutes.

    What an update measured is read one log interval late: by then it is computed, and the host
    never keeps the device waiting. The running sums are in the run's Progress. `log_every` is that
    of the config.
    """

    def __init__(self, progress, trackers, experiment, log_every):
        self._progress, self._trackers, self._compute = progress, trackers, experiment.aggregates
        self._loader = experiment.loaders["train"]
        every = parse_every(log_every, "step")
        self._lines = every.count if every.unit == "step" else 0  # batches between; 0: not by them
        self._read_every = self._lines or READ_EVERY
        self._seconds = 60 * every.count if every.unit == "minute" else math.inf
        self._timed_lines, self._next_line = set(), time.monotonic() + self._seconds
        self._steps_per_call = experiment.steps_per_call
        # [(batches, measured)] of the previous interval and of the current one
        self._previous, self._current = [], []
        self._running, self._max_running, self._last_wait = deque(), 1, None
        self._size = None  # bytes of what a call measures
        self._warned = set()  # names of results that were not finite
        self.loss = None  # the last training loss that was logged
        self.exact = True  # whether the sums and the log are those of the batches done
        self.sizes = None  # of the log's files before the epoch's results, which are being logged

    def start_epoch(self):
        """Logs the start of an epoch, or of the rest of one."""
        LOG.info("---- STARTING EPOCH %d ----", self._progress.epochs + 1)
        self._batches = self._progress.batches(self._loader)
        self._first, self._began = self._progress.batch, time.perf_counter()
        self._paused = 0.0  # seconds of this epoch in which something else was done
        self.sizes = None

    @timed("device")
    def limit_in_flight(self):
        """Waits until the device has so little queued that another call may be dispatched."""
        finished = 0
        while len(self._running) >= self._max_running:
            self._running.popleft().block_until_ready()
            finished += 1
        if finished:
            now = time.perf_counter()
            if self._last_wait:
                seconds_per_call = (now - self._last_wait) / finished
                self._max_running = min(1 + int(LEAD / seconds_per_call), IN_FLIGHT)
            self._last_wait = now

    @timed("logging")
    def add(self, measured, batches=1):
        """Adds what an update of some batches measured, without waiting for it.

        Args:
            measured: {name: (sum, weight)} and "finite", arrays on the device.
            batches: how many batches the update took.
        """
        first = self._progress.batch
        self._progress.batch += batches
        self._progress.steps += batches
        done = range(first, self._progress.batch)
        self._current.append((done, measured))
        self._running.append(measured["finite"])
        self._size = self._size or size_of(measured)
        if self._seconds < math.inf and time.monotonic() >= self._next_line:
            self._timed_lines.add(done[-1])
            self._next_line = time.monotonic() + self._seconds
        if any(batch % self._read_every == 0 for batch in done):
            entries, self._previous, self._current = self._previous, self._current, []
            self._accumulate(entries)
        elif (
            len(self._previous) + len(self._current)
        ) * self._size > MOST_HELD:  # of large statistics
            entries, self._previous, self._current = self._previous + self._current, [], []
            self._accumulate(entries)

    @timed("logging")
    def flush(self):
        """Waits for everything that was added, and brings the sums and the log up to date.

        Raises:
            NonFiniteError: at the first batch whose loss or gradient is not finite.
        """
        entries, self._previous, self._current = self._previous + self._current, [], []
        self._running.clear()
        self._last_wait = None  # the time between two epochs is not that of a call
        self._accumulate(entries)
        self._trained = time.perf_counter()

    def rewind(self, batch):
        """Forgets the batches from this one on, whose updates did not take place."""
        self._previous, self._current = [], []
        self._progress.steps -= self._progress.batch - batch
        self._progress.batch, self.exact = batch, True

    def pause(self):
        """Brings sums and log up to date before something else is done than training."""
        self.flush()
        self.sizes = self._trackers.sizes()

    def resume(self):
        """Training continues, after a `pause` within an epoch."""
        self.sizes, self._paused = None, self._paused + time.perf_counter() - self._trained

    @timed("logging")
    def end_epoch(self, evaluated):
        """Logs an epoch's time and results, also those `evaluated`; returns the results."""
        epoch = self._progress.epochs + 1
        results = self._progress.epoch.results(self._compute, "epoch_train_") | evaluated
        self._log_results(results, {"epoch": epoch})
        seconds, trained = time.perf_counter() - self._began, self._trained - self._began
        examples = (self._progress.batch - self._first) * self._loader.batch_size
        speed = examples / (trained - self._paused)
        self._trackers.time({"epoch": epoch, "seconds": seconds, "images_per_second": speed})
        LOG.info("---- Epoch %d took %.2f seconds to complete! ----", epoch, seconds)
        return results

    @timed("logging")
    def log_evaluation(self, evaluated, last=False):
        """Logs the results of an evaluation within an epoch, and returns them.

        The `last` one, where the run ends there, has those of the epoch's training so far as well.
        """
        progress = self._progress
        trained = progress.epoch.results(self._compute, "epoch_train_") if last else {}
        self._log_results(
            trained | evaluated, {"epoch": progress.epochs + 1, "batch": progress.batch}
        )
        return trained | evaluated

    def log_numbers(self, numbers):
        """Logs numbers of a callback, {name: number}."""
        progress = self._progress
        place = {"epoch": progress.epochs + 1, "batch": progress.batch}
        self._warn_of_non_finite(numbers, f"step {progress.steps}")
        self._trackers.log({"step": progress.steps} | place | numbers)

    def _log_results(self, results, place):
        epoch = place["epoch"]
        self._warn_of_non_finite(results, f"epoch {epoch}")
        for name, value in results.items():
            if np.ndim(value) and name not in self._warned:
                self._warned.add(name)
                LOG.info("%s is an array %s: only numbers are logged", name, np.shape(value))
            split, _, metric = name.removeprefix("epoch_").partition("_")
            if _is_rate(metric) or name.endswith(STD) or not isinstance(value, float):
                continue
            value = _with_std(results, name)
            if not metric.endswith("loss"):
                LOG.info("Epoch %d [%s] %s @ %s", epoch, split, metric, value)
            elif split != "train":
                LOG.info("Epoch %d [%s] avg %s: %s", epoch, split, _title(metric), value)
        self._trackers.log({"step": self._progress.steps} | place | results)

    def _accumulate(self, entries):
        progress, self.exact, failure = self._progress, False, None
        for batch, measured in self._each_batch(entries):
            if not measured.pop("finite").all():
                raise NonFiniteError(batch)
            progress.interval.add(measured)
            progress.epoch.add(measured)
            if (self._lines and batch % self._lines == 0) or batch in self._timed_lines:
                self._timed_lines.discard(batch)
                try:
                    self._log_interval_results(batch, progress.interval.results(self._compute))
                except FunctionError as error:  # of a metric: first the other batches are added
                    failure = failure or error
                progress.interval = progress.interval.emptied()
        self.exact = True
        if failure:
            raise failure

    def _each_batch(self, entries):
        """Yields the number of each batch and what was measured of it, on the host."""
        fetched = fetch([measured for _, measured in entries])
        for (batches, _), measured in zip(entries, fetched, strict=True):
            for step, batch in enumerate(batches):
                yield batch, measured if self._steps_per_call == 1 else pick(measured, step)

    def _log_interval_results(self, batch, results):
        epoch, percent = self._progress.epochs + 1, 100 * batch / self._batches
        self.loss = results.get("loss")
        losses = ", ".join(
            f"{_title(name)}: {_with_std(results, name)}"
            for name in results
            if name.endswith("loss")
        )
        LOG.info("Epoch %d [%d/%d (%.0f%%)] -- %s", epoch, batch, self._batches, percent, losses)
        step = self._progress.steps - self._progress.batch + batch + 1
        metrics = {
            name if _is_rate(name) else f"train_{name}": value for name, value in results.items()
        }
        self._warn_of_non_finite(metrics, f"epoch {epoch}, up to batch {batch}")
        self._trackers.log({"step": step, "epoch": epoch, "batch": batch} | metrics)

    def _warn_of_non_finite(self, results, where):
        """Warns, once for each name, of a result that is not finite."""
        for name, value in results.items():
            if isinstance(value, float) and not math.isfinite(value) and name not in self._warned:
                self._warned.add(name)
                LOG.warning(
                    "%s: %s is %s. What is not finite is null in metrics.jsonl, is given to no "
                    "tracker and is never the best", where, name, value
                )  # fmt: skip


def size_of(measured):
    """Returns the bytes of what was measured of a call."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(measured))


@timed("device")
def fetch(tree):
    """Returns the tree on the host. Off the CPU all copies start before the first is awaited.

    On the CPU starting one costs more than the copy.
    """
    if jax.default_backend() == "cpu":
        return jax.tree.map(np.asarray, tree)
    return jax.device_get(tree)


def _title(name):
    return "Loss" if name == "loss" else name


def _with_std(results, name):
    std = results.get(name + STD)
    return results[name] if std is None else f"{results[name]} ± {std:.2g}"


def _is_rate(name):
    return name.removesuffix(STD).endswith(("gradient_norm", "learning_rate"))


class MetricAccumulator:
    """Running sums {name: (sum, weight)} of what update or evaluate measured, kept in float64.

    `sums` and `arrays` are what `to_json` returned and filled, to continue from.
    """

    def __init__(self, sums=None, arrays=None):
        self.sums = {
            name: (_from_json(total, arrays), _from_json(weight, arrays))
            for name, (total, weight) in (sums or {}).items()
        }
        self._tables = {}  # of Cells, whose memory is used again

    def emptied(self):
        """Returns an empty one that takes over the tables: new memory costs more than their sums.

        What `results` returned of tables is no longer valid.
        """
        empty = MetricAccumulator()
        empty._tables = {name: total for name, (total, _) in self.sums.items() if np.ndim(total)}
        return empty

    def add(self, measured):
        """Adds one batch's {name: (sum, weight)}."""
        for name, (total, weight) in measured.items():
            total_before, weight_before = self.sums.get(name, (0.0, 0.0))
            with np.errstate(invalid="ignore"):  # of inf - inf
                if isinstance(total, Cells):  # the table grows in place
                    total_before = self._table(name, total, total_before)
                    total.add_to(total_before)
                else:
                    total_before = total_before + np.asarray(total, np.float64)
            self.sums[name] = (total_before, weight_before + np.asarray(weight, np.float64))

    def _table(self, name, cells, before):
        """Returns the table to which cells of this name are added."""
        if np.ndim(before):
            return before
        shape, table = (*cells.index.shape[:-1], *cells.table), self._tables.pop(name, None)
        if table is None or table.shape != shape:
            return np.zeros(shape)
        table.fill(0)
        return table

    def results(self, compute=None, prefix=""):
        """Returns {prefix + name: result}.

        A result is the mean, or for an aggregated metric what `compute[name](sum, weight)` returns.
        With several seeds (training.seeds) it is the mean of their results, and name + STD is the
        standard deviation of these.
        """
        results = {}
        for name in sorted(self.sums, key=lambda name: not name.endswith("loss")):
            (total, weight), result_of = self.sums[name], (compute or {}).get(name, _mean)
            if weight.ndim == 0:
                found = _named(name, result_of(total, float(weight)))
            else:
                pairs = zip(total, weight.tolist(), strict=True)  # one for each seed
                found = over_seeds([_named(name, result_of(*pair)) for pair in pairs])
            found = {prefix + key: one for key, one in found.items()}
            if found.keys() & results.keys():
                with_names(results, found, f"the metric {name}")
            results |= found
        return results

    def to_json(self, arrays=None, prefix=""):
        """Returns the sums as JSON can hold them; `MetricAccumulator(sums)` restores every bit.

        Args:
            arrays: dict that takes the large ones, if given; the JSON then has their names.
            prefix: of these names.
        """
        return {
            name: [_to_json(one, arrays, f"{SUMS}{prefix}{name}/{i}") for i, one in enumerate(pair)]
            for name, pair in self.sums.items()
        }


def over_seeds(results):
    """Returns the mean of the results of several seeds, and name + STD their standard deviation."""
    found = {}
    for name in results[0]:
        of_seeds = np.array([one[name] for one in results])
        is_number = of_seeds.ndim == 1
        found[name] = float(of_seeds.mean()) if is_number else of_seeds.mean(0)
        if is_number:
            found[name + STD] = float(of_seeds.std(ddof=1))
    return found


def _to_json(array, arrays, name):
    """Returns a number or lists of numbers; of a large array its name, or bytes without `arrays`.

    Bytes it returns where a number is not finite, too: JSON has no NaN.
    """
    if array.size >= LARGE and arrays is not None:
        arrays[name] = array
        return {"array": name}
    if array.size < LARGE and np.isfinite(array).all():
        return array.tolist()
    return {"shape": array.shape, "base64": base64.b64encode(array.tobytes()).decode()}


def _from_json(value, arrays):
    if not isinstance(value, dict):
        return np.asarray(value, np.float64)
    if str(value.get("array")).startswith(SUMS):
        return np.array(math.nan if arrays is None else arrays.pop(value["array"]), np.float64)
    numbers = np.frombuffer(bytearray(base64.b64decode(value["base64"])))  # may be written to
    return numbers.reshape(value["shape"])


def _named(name, result):
    return {name: result} if isinstance(result, float) else named_numbers(name, result)


def _mean(total, weight):
    return float(total) / weight if weight else float("nan")
