"""What is done between two updates, and when: evaluation, callbacks, saving, the end of the run.

Steps are counted over the whole run and epochs at their ends, so that a resumed run does the same
at the same places. Minutes are of this start's wall time: they say when files are written and
callbacks are called, and change no parameters.
"""

import json
import math

from training.common.every import parse_every
from training.common.timing import timed
from training.distributed.clock import Clock
from training.distributed.processes import any_process, broadcast
from training.engine.evaluation import evaluate_all


class Schedule:
    """Does what is due, where training has come to step `next` and at the end of each epoch.

    Args:
        run: the Run.
        callbacks: its BoundCallbacks.
        logger: its MetricLogger.
        saver: its Saver.
        trackers: its Trackers.
        stop: the StopSignal.
    """

    def __init__(self, run, callbacks, logger, saver, trackers, stop):
        self._run, self._callbacks, self._logger = run, dict(enumerate(callbacks)), logger
        self._saver, self._trackers, self._stop = saver, trackers, stop
        settings, progress = run.config.training, run.progress
        self._every = {"evaluate": parse_every(settings.evaluate_every)}
        self._every |= {index: one.every for index, one in self._callbacks.items()}
        self._every |= {"save": parse_every(settings.save_every)}
        minutes = {str(name): one.count for name, one in self._every.items()
                   if one.unit == "minute"}  # fmt: skip
        self._clock = Clock(minutes, progress.steps)
        # What a signal or an error kept from being done is done first.
        left = progress.batch and progress.handled != progress.steps
        self.next = self._after(progress.steps - bool(left))
        run.follow(logger, trackers)

    def room(self):
        """Returns how many updates there are until something is due."""
        steps = self._run.progress.steps
        return (self.next if self.next > steps else self._after(steps)) - steps

    def _after(self, steps):
        """Returns the next step after this one at which something is due."""
        last = self._run.config.training.max_steps or 0
        found = [one.next_step(steps) for one in self._every.values()] + [self._clock.next]
        return min([one for one in (*found, last) if one > steps], default=math.inf)

    def _due(self, epoch_ends):
        """Returns what is due now: names of `_every`."""
        progress, over = self._run.progress, self._clock.due(self._run.progress.steps)
        now = {"step": progress.steps, "epoch": progress.epochs + 1 if epoch_ends else math.inf}
        return {
            name for name, (count, unit) in self._every.items()
            if (str(name) in over if unit == "minute" else now[unit] % count == 0)
        }  # fmt: skip

    def handle(self, epoch_over=False):
        """Does what is due; returns whether the run continues.

        It does not where a signal stops it: then all that is due here is done on resuming.
        """
        run, progress, settings = self._run, self._run.progress, self._run.config.training
        last = self._is_last(epoch_over)
        due = self._due(epoch_over or last)
        if due or epoch_over or last:
            self._logger.pause()
            results = self._results(due, epoch_over, last)
            if results is None:
                return False
            count = progress.end_epoch if epoch_over else progress.compare
            better = count(results, settings.monitor)
            progress.stopped, progress.handled = run.stop_reason, progress.steps
            progress.metrics = _numbers(run.metrics)
            self._logger.resume()
            self._save(due, epoch_over, better)
        self.next = self._after(progress.steps)
        return not progress.finished(settings)

    def _is_last(self, epoch_over):
        """Whether the run ends here, unless it is stopped before."""
        settings, progress = self._run.config.training, self._run.progress
        return (
            epoch_over and settings.epochs is not None and progress.epochs + 1 >= settings.epochs
        ) or (settings.max_steps is not None and progress.steps >= settings.max_steps)

    def _results(self, due, epoch_over, last):
        """Evaluates and calls the callbacks; returns {name: result}, None where a signal came."""
        run, logger, results = self._run, self._logger, {}
        evaluated = self._evaluate() if last or "evaluate" in due else None
        if self._stop.due():
            return None
        if epoch_over:
            results = logger.end_epoch(evaluated or {})
        elif evaluated is not None:
            results = logger.log_evaluation(evaluated, last)
        run.metrics = run.metrics | results
        called = [one for index, one in self._callbacks.items() if index in due]
        if called:
            self._call(called)
        if run.stop_reason is None or last:
            return results
        # A callback ends the run here: then what its last moment has anyhow is missing.
        missing = self._evaluate() if evaluated is None else {}
        if self._stop.due() and evaluated is None:
            return None
        if missing or not epoch_over:
            results |= logger.log_evaluation(missing, last=not epoch_over)
        run.metrics = run.metrics | results
        return results

    def _evaluate(self):
        return evaluate_all(self._run.experiment, self._run.params, self._stop)

    @timed("callbacks")
    def _call(self, callbacks):
        """Calls callbacks; process 0 says whether they stop the run."""
        for one in callbacks:
            one(self._run)
        self._run.stop_reason = json.loads(broadcast(json.dumps(self._run.stop_reason)))

    def _save(self, due, epoch_over, better):
        """Saves where it is due, at the end of the run, and what is the best so far."""
        finished = self._run.progress.finished(self._run.config.training)
        numbered = finished or "save" in due
        # What the disk refused is tried again.
        numbered = numbered or (epoch_over and any_process(self._saver.failure))
        if numbered or better:
            self._run.save(self._saver, self._trackers, numbered, better)


def _numbers(metrics):
    """Returns the numbers among metrics, as JSON can hold them."""
    return {
        name: value if math.isfinite(value) else None
        for name, value in metrics.items()
        if type(value) in (int, float)
    }
