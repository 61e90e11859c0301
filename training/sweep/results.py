"""The results of a sweep: a table and a page of the settings, and a CSV line for each run."""

import csv
import io
import json
import math
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from training.checkpoint.naming import latest
from training.checkpoint.reading import read_meta
from training.common.files import atomic_write_text
from training.common.measure import loss_name
from training.common.records import STD, read_lines
from training.common.tables import text_table
from training.engine.progress import Progress
from training.sweep.plan import ERRORS, short_names, value_text
from utils import UserError, csv_text, optional_module, printable

SEED = ("seed",)  # the keys over which results are gathered, if no other is named


class Setting(NamedTuple):
    """Runs that differ by their seed alone, or by other keys, and their monitored metric."""

    values: dict[str, Any]  # of the keys that were tried, without those
    seeds: str  # how many are finished: "3", "2 of 3"
    bests: dict[str, float]  # {run's name: the metric in its best epoch}
    mean: float  # of these; NaN if there are none
    std: float | None  # their standard deviation
    last: float  # the mean of the last epochs
    missing: dict[str, str]  # {run's name: why it has no result}


def finished(run):
    """Whether a run trained all its epochs or stopped early, according to its last checkpoint."""
    progress = _progress(run)
    return progress is not None and progress.finished(run.config.training)


def monitored(runs):
    """Returns "min" or "max", and the name of the monitored metric: without one, the test loss."""
    training = runs[0].config.training
    if training.monitor is None:
        return "min", f"test_{loss_name(next(iter(training.all_groups())))}"
    sense, _, name = training.monitor.partition(" ")
    return sense, name


def describe(run):
    """Returns the monitored metric of a run in words."""
    best, _, last = outcome(run)
    name = monitored([run])[1]
    return f"{name} {format_metric(best)} in its best epoch, {format_metric(last)} in its last"


def settings(runs, over=SEED):
    """Returns the Settings, the best first; those with runs that are not finished come last.

    Args:
        runs: the Runs.
        over: the keys over whose values the mean is taken.
    """
    groups = {}
    for run in runs:
        values = {key: value for key, value in run.values.items() if key not in over}
        groups.setdefault(json.dumps(values), (values, []))[1].append(run)
    found = [_setting(*group) for group in groups.values()]
    sign = 1 if monitored(runs)[0] == "min" else -1

    def rank(one):
        return math.isnan(one.mean), bool(one.missing), sign * one.mean

    return sorted(found, key=rank)


def table(runs, over=SEED):
    """Returns the Settings as a table for the console."""
    rows = [headings(runs, over), *map(cells, settings(runs, over))]
    return "\n".join(text_table(rows, ">" * len(rows[0])))


def missing(runs):
    """Returns {name: why} of the runs without a result, which are in no mean."""
    return {run.folder.name: _why_missing(run) for run in runs if not finished(run)}


def write_csv(folder, runs):
    """Writes sweep.csv into the sweep's folder, with a line for each run; returns its path."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["run", *runs[0].values, "finished", monitored(runs)[1], "std", "last_epoch"])
    for run in runs:
        values = [
            csv_text(value) if isinstance(value, str) else value_text(value)
            for value in run.values.values()
        ]
        numbers = [x if x is not None and math.isfinite(x) else "" for x in outcome(run)]
        lines.writerow([run.folder.name, *values, finished(run), *numbers])
    atomic_write_text(folder / "sweep.csv", text.getvalue())
    return folder / "sweep.csv"


def write_json(folder, runs, over=SEED):
    """Writes sweep.json, the table's numbers in full, into the sweep's folder; returns its path."""
    sense, name = monitored(runs)
    found = [
        {key: _or_null(value) for key, value in one._asdict().items()}
        for one in settings(runs, over)
    ]
    content = {"metric": name, "best": sense, "over": list(over), "settings": found}
    atomic_write_text(folder / "sweep.json", json.dumps(content, indent=4) + "\n")
    return folder / "sweep.json"


def write_page(folder, runs, over=SEED):
    """Writes sweep.html beside sweep.csv; returns its path, or None without training/report."""
    report = optional_module("training.report.render")
    if report is None:
        return None
    html = report.render(
        "sweep.html.jinja", Path(__file__).parent, **_values(folder.name, runs, over)
    )
    atomic_write_text(folder / "sweep.html", html)
    return folder / "sweep.html"


def headings(runs, over=SEED):
    """Returns the headings of the table."""
    names = [name for key, name in short_names(list(runs[0].values)).items() if key not in over]
    number = "seeds" if tuple(over) == SEED else "runs"
    return [*names, number, monitored(runs)[1], "±", "last epoch"]


def cells(setting):
    """Returns a Setting's line of the table."""
    std = "" if setting.std is None else f"{setting.std:#.2g}"
    metrics = [format_metric(setting.mean), std, format_metric(setting.last)]
    return [*map(value_text, setting.values.values()), setting.seeds, *metrics]


def format_metric(value):
    """Returns a metric as text, with few enough digits to be read."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.4f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.4g}"


def _progress(run):
    """The Progress of a run's last checkpoint; None if it has none, or a damaged one."""
    try:
        checkpoint = latest(run.folder)
        return checkpoint and Progress.from_meta(read_meta(checkpoint), checkpoint)
    except UserError:  # resuming this run shows the message
        return None


def outcome(run):
    """The monitored metric: in the best epoch, its std over `training.seeds`, in the last epoch.

    NaN, None and NaN where the run is not finished.
    """
    sense, name = monitored([run])
    progress, lines = _progress(run), read_lines(run.folder / "metrics.jsonl")
    epochs = [line for line in lines if name in line]
    epochs = [line | {name: math.nan} if line[name] is None else line for line in epochs]
    # On a full disk, lines may be lost of a run that is finished all the same.
    complete = progress and epochs and epochs[-1].get("epoch") == progress.position()[0]
    if not (complete and progress.finished(run.config.training)):
        return math.nan, None, math.nan
    finite = [line for line in epochs if math.isfinite(line[name])] or epochs
    if run.config.training.monitor is None:
        finite = epochs[-1:]  # no epoch is better than the last
    best = (min if sense == "min" else max)(finite, key=lambda line: line[name])
    return best[name], best.get(name + STD), epochs[-1][name]


def _setting(values, runs):
    done = [run for run in runs if finished(run)]
    bests, stds, lasts = zip(*map(outcome, done), strict=True) if done else [()] * 3
    std = next(iter(stds), None)  # over `training.seeds`
    if len(bests) > 1:
        std = statistics.stdev(bests) if all(map(math.isfinite, bests)) else None
    mean, last = (statistics.fmean(some) if some else math.nan for some in (bests, lasts))
    some, every = (sum(run.config.training.seeds for run in group) for group in (done, runs))
    named = {run.folder.name: best for run, best in zip(done, bests, strict=True)}
    seeds = str(every) if some == every else f"{some} of {every}"
    return Setting(values, seeds, named, mean, std, last, missing(runs))


def _why_missing(run):
    """Why a run is not finished: what its process wrote last, if it failed."""
    errors = run.folder / ERRORS
    text = errors.read_text(errors="replace").strip() if errors.is_file() else ""
    return run.state or (f"failed: {printable(text.splitlines()[-1])}" if text else "not finished")


def _or_null(value):
    """A value as JSON can hold it."""
    if isinstance(value, dict):
        return {key: _or_null(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _values(name, runs, over):
    """The template's variables; positions are in percent of the plot's width."""
    sense, metric = monitored(runs)
    found = settings(runs, over)
    scale, ticks = _scale(found, metric)
    return {
        "title": runs[0].config.title,
        "name": name,
        "sense": {"min": "lowest", "max": "highest"}[sense],
        "metric": metric.replace("_", " "),
        "runs": len(runs),
        "finished": sum(len(one.bests) for one in found),
        "gathered": "seed" if tuple(over) == SEED else "run",
        "missing": missing(runs),
        "headings": [heading.replace("_", " ") for heading in headings(runs, over)],
        "ticks": [(scale(value), text) for value, text in ticks],
        "rows": [
            {
                "cells": cells(one),
                "dots": [
                    (scale(x), run, format_metric(x))
                    for run, x in one.bests.items()
                    if math.isfinite(x)
                ],
                "mean": scale(one.mean),
                "band": [scale(end) for end in _band(one)],
            }
            for one in found
        ],
    }


def _scale(found, name):
    """The scale of the plot, a function to percent, and its (value, label) ticks."""
    charts = optional_module("training.report.charts")
    shown = {value for one in found for value in (*_band(one), *one.bests.values())}
    finite = [value for value in shown if math.isfinite(value)] or [0, 1]
    low, high = min(finite), max(finite)
    log = charts.lower_is_better(name) and low > 0 and high / low >= charts.LOG_RATIO
    return (charts.log_scale if log else charts.linear_scale)(low, high)


def _band(setting):
    """The mean of a Setting, minus and plus its standard deviation."""
    return [setting.mean + sign * (setting.std or 0) for sign in (-1, 1)]
