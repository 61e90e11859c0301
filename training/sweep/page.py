"""Writes sweep.html: the table of a sweep with a plot, in the style of a run's report."""

import math
from pathlib import Path

from training.common.files import atomic_write_text
from training.sweep.results import cells, format_metric, headings, monitored, settings
from utils import optional_module


def write_page(folder, runs):
    """Writes sweep.html into the sweep's folder; returns its path, or None without training/report.

    Args:
        folder: of the sweep.
        runs: of the sweep.
    """
    report = optional_module("training.report.render")
    if report is None:
        return None
    html = report.render("sweep.html.jinja", Path(__file__).parent, **_values(folder, runs))
    atomic_write_text(folder / "sweep.html", html)
    return folder / "sweep.html"


def _values(folder, runs):
    """The template's variables; positions are in percent of the plot's width."""
    sense, name = monitored(runs)
    found = settings(runs)
    scale, ticks = _scale(found, name)
    return {
        "title": runs[0].config.title,
        "name": folder.name,
        "sense": {"min": "lowest", "max": "highest"}[sense],
        "metric": name.replace("_", " "),
        "runs": len(runs),
        "finished": sum(len(one.bests) for one in found),
        "headings": [heading.replace("_", " ") for heading in headings(runs)],
        "ticks": [(scale(value), text) for value, text in ticks],
        "rows": [
            {
                "cells": cells(one),
                "dots": [
                    (scale(best), run, format_metric(best)) for run, best in one.bests.items()
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
