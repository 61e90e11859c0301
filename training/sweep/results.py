"""What came of a sweep: a table, sweep.csv with a line for each run, and sweep.html to look at."""

import contextlib
import csv
import io
import json
import math
import statistics
from typing import Any, NamedTuple

import jinja2

import utils
from training.common.files import atomic_write_text
from training.common.records import STD, rename_std
from training.report.charts import LOG_RATIO, log_scale, lower_is_better, scale
from training.sweep.plan import short_names, value_text


class Setting(NamedTuple):
    """Runs that differ by their seed alone, and their monitored figure."""

    values: dict[str, Any]  # that they have in common of those tried
    seeds: str  # how many are finished: "3", "2 of 3"
    bests: dict[str, float]  # by the run's name, the figure in its best epoch
    mean: float  # of these; NaN if there are none
    spread: float | None  # their standard deviation
    last: float  # the mean of the last epochs


def finished(run):
    """Whether a run has come to its end, where it writes the report."""
    return (run.folder / "report.html").exists()


def monitored(runs):
    """Returns "min" or "max", and the name of the monitored figure."""
    sense, _, name = runs[0].config.training.monitor.partition(" ")
    return sense, name


def figures(run):
    """Returns the monitored figure of a run in words."""
    best, _, last = _outcome(run)
    return f"{monitored([run])[1]} {_number(best)} in its best epoch, {_number(last)} in its last"


def settings(runs):
    """Returns the Settings, the best first and those without a finished run last."""
    groups = {}
    for run in runs:
        values = {key: value for key, value in run.values.items() if key != "seed"}
        groups.setdefault(json.dumps(values), (values, []))[1].append(run)
    found = [_setting(*group) for group in groups.values()]
    sign = 1 if monitored(runs)[0] == "min" else -1
    return sorted(found, key=lambda one: math.inf if math.isnan(one.mean) else sign * one.mean)


def table(runs):
    """Returns the Settings as a table for the console."""
    lines = [_headings(runs), *map(_cells, settings(runs))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def write_results(folder, runs):
    """Writes sweep.csv and sweep.html into the sweep's folder; returns the page's path."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["run", *runs[0].values, "finished", monitored(runs)[1], "spread", "last_epoch"])
    for run in runs:
        values = map(value_text, run.values.values())
        lines.writerow([run.folder.name, *values, finished(run), *_outcome(run)])
    atomic_write_text(folder / "sweep.csv", text.getvalue())
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(utils.ROOT / "training"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = jinja.get_template("sweep.html.jinja").render(_page(folder, runs))
    atomic_write_text(folder / "sweep.html", page)
    return folder / "sweep.html"


def _outcome(run):
    """The monitored figure: in the best epoch, its spread over `training.seeds`, in the last."""
    sense, name = monitored([run])
    epochs = []
    with contextlib.suppress(OSError, ValueError):  # a disk that was full, say, has spoilt it
        lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        lines = [rename_std(json.loads(line)) for line in lines]
        epochs = [line for line in lines if "batch" not in line and name in line]
    if not (epochs and finished(run)):
        return math.nan, None, math.nan
    finite = [line for line in epochs if math.isfinite(line[name])] or epochs
    best = (min if sense == "min" else max)(finite, key=lambda line: line[name])
    return best[name], best.get(name + STD), epochs[-1][name]


def _setting(values, runs):
    done = [run for run in runs if finished(run)]
    bests, spreads, lasts = zip(*map(_outcome, done), strict=True) if done else [()] * 3
    spread = statistics.stdev(bests) if len(bests) > 1 else next(iter(spreads), None)
    mean, last = (statistics.fmean(some) if some else math.nan for some in (bests, lasts))
    some, every = (sum(run.config.training.seeds for run in group) for group in (done, runs))
    named = {run.folder.name: best for run, best in zip(done, bests, strict=True)}
    seeds = str(every) if some == every else f"{some} of {every}"
    return Setting(values, seeds, named, mean, spread, last)


def _headings(runs):
    names = short_names(list(runs[0].values))
    names.pop("seed", None)
    return [*names.values(), "seeds", monitored(runs)[1], "±", "last epoch"]


def _cells(setting):
    spread = "" if setting.spread is None else f"{setting.spread:#.2g}"
    measured = [_number(setting.mean), spread, _number(setting.last)]
    return [*map(value_text, setting.values.values()), setting.seeds, *measured]


def _page(folder, runs):
    """What the template shows; places are in percent of the width of the plot."""
    sense, name = monitored(runs)
    found = settings(runs)
    bands = {one.mean + sign * (one.spread or 0) for one in found for sign in (-1, 1)}
    shown = bands.union(*(one.bests.values() for one in found))
    ends = [end for end in shown if math.isfinite(end)] or [0, 1]
    log = lower_is_better(name) and min(ends) > 0 and max(ends) / min(ends) >= LOG_RATIO
    place, ticks = (log_scale if log else scale)(min(ends), max(ends))
    return {
        "title": runs[0].config.title,
        "name": folder.name,
        "sense": {"min": "lowest", "max": "highest"}[sense],
        "metric": name.replace("_", " "),
        "runs": len(runs),
        "finished": sum(len(one.bests) for one in found),
        "headings": [heading.replace("_", " ") for heading in _headings(runs)],
        "ticks": [(place(value), text) for value, text in ticks],
        "rows": [
            {
                "cells": _cells(one),
                "dots": [(place(best), run, _number(best)) for run, best in one.bests.items()],
                "mean": place(one.mean),
                "band": [place(one.mean + sign * (one.spread or 0)) for sign in (-1, 1)],
            }
            for one in found
        ],
    }


def _number(value):
    """A number for the eye."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.4f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.4g}"
