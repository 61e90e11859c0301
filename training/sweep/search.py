"""A search by Optuna, which chooses each trial's values by the results so far, and ends bad ones.

A trial is a setting: a run for each seed, or for each value of the keys over which the mean is
taken. What Optuna knows is in search.journal in the sweep's folder, so that a killed search
continues; what was training then is trained on, and no finished run is trained again.
"""

import contextlib
import json
import os
import statistics
import time
from pathlib import Path

from training.common.files import disk_errors
from training.common.locks import lock
from training.common.records import read_lines
from training.distributed.preemption import StopSignal
from training.sweep.execute import POLL_INTERVAL, claim, report_end, start
from training.sweep.plan import Range, create_folders
from training.sweep.results import finished, monitored, outcome
from utils import UserError, nearest, optional_library

REQUIREMENT = "optuna==5.0.0"
JOURNAL = "search.journal"
SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "qmc": "QMCSampler",
    "cmaes": "CmaEsSampler",
    "gp": "GPSampler",
}
PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
}


class Search:
    """A study of Optuna whose trials are runs.

    Args:
        make_runs: function of {key: value} that returns the Runs of a setting.
        choices: {key: list of values to try, or Range} of what is searched.
        sampler, pruner: names of SAMPLERS and PRUNERS.
        jobs: trials that are trained at a time.
    """

    def __init__(self, make_runs, choices, sampler, pruner, jobs):
        self._make_runs, self._choices, self._jobs = make_runs, choices, jobs
        _check_name(sampler, SAMPLERS, "--sampler")
        _check_name(pruner, PRUNERS, "--pruner")
        first = {key: one.low if isinstance(one, Range) else one[0] for key, one in choices.items()}
        run = make_runs(first)[0]
        self.folder, self.failed = run.folder.parent, 0
        self._optuna = optional_library("optuna", REQUIREMENT, "--sampler and --pruner")
        self._states = self._optuna.trial.TrialState
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        lock(self.folder, JOURNAL)  # two searches would train each other's trials
        self._study = self._open(monitored([run])[0], sampler, pruner)
        for one in self._study.get_trials(states=[self._states.RUNNING]):  # of a killed search
            self._study.enqueue_trial(one.params)
            self._study.tell(one.number, state=self._states.FAIL)

    def _open(self, sense, sampler, pruner):
        optuna, path = self._optuna, self.folder / JOURNAL
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with disk_errors(path), contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
            if not content.endswith(b"\n"):  # a killed search was writing
                os.truncate(path, content.rfind(b"\n") + 1)
        try:
            storage = optuna.storages.JournalStorage(
                optuna.storages.journal.JournalFileBackend(str(path))
            )
            study = optuna.create_study(
                storage=storage, study_name="sweep", direction=f"{sense}imize", load_if_exists=True
            )
            # Another seed for each start: the same would draw the same again.
            args = {"seed": len(study.trials)}
            if sampler == "tpe" and self._jobs > 1:
                args["constant_liar"] = True  # trials that are training count as bad ones
            study.sampler = getattr(optuna.samplers, SAMPLERS[sampler])(**args)
            study.pruner = getattr(optuna.pruners, PRUNERS[pruner])()
        except (ImportError, KeyError, ValueError) as error:
            raise UserError(
                f"{path}: Optuna cannot continue from it, or misses a library: {error}. Name "
                "another sampler, or another folder with --name"
            ) from error
        return study

    def run(self, trials):
        """Trains until there are so many trials; returns the number of the signal that stopped it.

        On a signal the runs that are training save and end, and no other starts.
        """
        active, passed_on = [], False
        print(f"{self.folder}: {trials} trials, {self._ended()} of them done", flush=True)
        with StopSignal() as stop:
            while True:
                free = min(self._jobs, trials - self._ended()) - len(active)
                active += [self._next() for _ in range(0 if stop.signal else free)]
                if not active:
                    return stop.signal
                time.sleep(POLL_INTERVAL)
                if stop.signal and not passed_on:
                    passed_on = True
                    for one in active:
                        one.terminate()
                count = f"[{self._ended() + 1}/{trials}]"
                active = [one for one in active if not self._advance(one, count, stop.signal)]

    def runs(self):
        """Returns the Runs of all trials, with the reason where a run is not to be finished."""
        found = {}
        for one in self._study.trials:
            if one.params.keys() != self._choices.keys():  # killed before it began
                continue
            values = _values(
                _choices_of(one, self._choices), lambda key, _, one=one: one.params[key]
            )
            pruned = one.state == self._states.PRUNED
            state = f"pruned after {len(one.intermediate_values)} evaluations" if pruned else ""
            found |= {run.folder: run._replace(state=state) for run in self._make_runs(values)}
        return list(found.values())

    def _ended(self):
        """The number of trials that ended, whether with a result, pruned or failed."""
        ended = (self._states.COMPLETE, self._states.PRUNED)
        return sum(
            one.state in ended or "failed" in one.user_attrs
            for one in self._study.get_trials(deepcopy=False)
        )

    def _next(self):
        trial = self._study.ask()
        try:
            values = _values(self._choices, lambda *named: _suggest(trial, *named))
        except ValueError as error:
            raise UserError(
                f"{self.folder}: this search was begun with other values to try: {error}. Try the "
                "same, or name another folder with --name"
            ) from error
        runs = self._make_runs(values)
        create_folders(runs)
        return _Trial(trial, runs)

    def _advance(self, one, count, stopped):
        """Lets a trial go on; returns whether it has ended, or is to be continued later."""
        if one.job is None:
            if stopped:
                return True
            one.start_next(self._jobs)
            if one.job is None and all(map(finished, one.runs)):
                self._tell_value(one)
                return True
            return False
        if one.report_epochs() and not one.pruned and one.trial.should_prune():
            one.pruned = True
            one.terminate()
        if one.job.process.poll() is None:
            return False
        job, one.job = one.job, None
        if report_end(job, count, stopped or one.pruned, "pruned" if one.pruned else "stopped"):
            self._fail(one)
            return True
        if one.pruned and not finished(job.run):
            self._study.tell(one.trial, state=self._states.PRUNED)
            return True
        return False

    def _tell_value(self, one):
        values = [outcome(run)[0] for run in one.runs]
        value = statistics.fmean(values)
        if value != value or abs(value) == float("inf"):
            self._fail(one)
        else:
            self._study.tell(one.trial, value)

    def _fail(self, one):
        self.failed += 1
        one.trial.set_user_attr("failed", True)
        self._study.tell(one.trial, state=self._states.FAIL)


class _Trial:
    """A trial that is being trained: its runs, one after the other."""

    def __init__(self, trial, runs):
        self.trial, self.runs, self.job, self.pruned = trial, runs, None, False
        self._size, self._reported = -1, set()

    def start_next(self, jobs):
        """Starts the first run that is not finished, unless another process trains it."""
        for run in self.runs:
            if not finished(run):
                if errors := claim(run):
                    self.job, self._size = start(run, errors, jobs), -1
                return

    def report_epochs(self):
        """Tells Optuna the metric of each epoch of the running job; returns whether one is new."""
        run, new = self.job.run, False
        path = Path(run.folder, "metrics.jsonl")
        size = path.stat().st_size if path.exists() else 0
        if size == self._size:
            return False
        self._size = size
        runs = self.runs[: self.runs.index(run) + 1]
        values = [value for one in runs for value in _evaluations(one)]
        for step, value in enumerate(values):
            if value is not None and step not in self._reported:
                self._reported.add(step)
                self.trial.report(value, step)
                new = True
        return new

    def terminate(self):
        """Has the running job save and end."""
        if self.job:
            self.job.process.terminate()


def _check_name(name, names, option):
    """Refuses what is no name of a sampler or pruner."""
    if name not in names:
        known = nearest(name, names) or f"; there are {', '.join(names)}"
        raise UserError(f"{option}: no {name!r}{known}")


def _suggest(trial, key, one):
    """What Optuna suggests for a key."""
    if not isinstance(one, Range):
        return trial.suggest_categorical(key, [json.dumps(value) for value in one])
    suggest = trial.suggest_int if one.integer else trial.suggest_float
    return suggest(key, one.low, one.high, log=one.log)


def _choices_of(trial, choices):
    """The choices with the ranges that were those of a trial; later ones may be others."""
    ends = {key: (one.low, one.high) for key, one in trial.distributions.items()
            if isinstance(choices[key], Range)}  # fmt: skip
    return choices | {
        key: choices[key]._replace(low=low, high=high) for key, (low, high) in ends.items()
    }


def _values(choices, suggested):
    """{key: value} as it is tried, of what Optuna suggests: numbers, and JSON of listed values."""
    found = {key: suggested(key, one) for key, one in choices.items()}
    return {
        key: one.rounded(found[key]) if isinstance(one, Range) else json.loads(found[key])
        for key, one in choices.items()
    }


def _evaluations(run):
    """Returns the monitored number of each evaluation of a run, None where it was not finite."""
    name = monitored([run])[1]
    return [line[name] for line in read_lines(Path(run.folder, "metrics.jsonl")) if name in line]
