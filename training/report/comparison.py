"""Several runs on one page: their curves over each other, and all in which they differ."""

import os
import statistics
from pathlib import Path

from training.common.files import atomic_write_text
from training.common.records import STD, read_lines
from training.report.charts import RATES, chart, curves, lower_is_better
from training.report.compare import differences, find_runs, verdicts
from training.report.page import render

COLOURS, DASHES = 8, ("", " dashed", " dotted")  # beyond the colours, runs have other strokes
NO_DOTS = tuple(name.replace("_", " ") for name in RATES)  # of every interval: they would crowd
SPLITS = {"test": "test", "validation": "validation", "train": "train", "interval": "train"}


def write_comparison(paths, out=None):
    """Writes a page that holds runs against each other, in one file that needs no network.

    Args:
        paths: run folders, or folders of them.
        out: the file; None stands for comparison.html in the folder that holds them all.

    Returns:
        The path of the file.

    Raises:
        UserError: there are fewer than two runs, or one is no run folder.
    """
    runs = find_runs(paths)
    sections = differences(runs)
    if seconds := _seconds(runs):
        sections["last epoch"] |= seconds
    rows = {
        title: [(name, _cells(name, cells)) for name, cells in section.items()]
        for title, section in sections.items()
    }
    html = render(
        "comparison.html.jinja",
        title=_title(runs),
        lines=[_line(place) for place in range(len(runs))],
        runs=[run.resolve().name for run in runs],
        charts=overlaid([read_lines(run / "metrics.jsonl") for run in runs]),
        sections=rows,
        verdicts=list(verdicts(runs)),
    )
    path = Path(out) if out else _home(runs) / "comparison.html"
    atomic_write_text(path, html)
    return path


def overlaid(metrics):
    """Returns a chart for each measure of each split, with a line for each run that has it.

    Args:
        metrics: for each run the lines of its metrics.jsonl.
    """
    found = [curves(lines) for lines in metrics]
    # Of a run without a finished epoch it is not known where in one it is.
    unit = "epoch" if any(unit == "epoch" for _, unit in found) else "step"
    overlays = {}
    for place, (measured, own_unit) in enumerate(found):
        for name, curve in measured.items() if own_unit == unit else ():
            if "only" in curve:
                curve = {"only": curve["only"]}
            elif "train" in curve:
                curve.pop("interval", None)
            for line, points in curve.items():
                title = f"{SPLITS[line]} {name}" if line in SPLITS else name
                overlays.setdefault(title, {})[_line(place)] = points
    labels = {_line(place): place + 1 for place in range(len(metrics))}
    ends = [x for curve in overlays.values() for points in curve.values() for x, _ in points]
    end = max(ends, default=0) or 1
    order = sorted(overlays, key=_rank)
    shown = [chart(title, overlays[title], end, unit, labels) for title in order]
    return [one | {"dots": {}} if one["name"].endswith(NO_DOTS) else one for one in shown]


def _rank(title):
    """Test before validation before training, rates last; else as they came."""
    starts = ("test ", "validation ", "train ")
    return next((rank for rank, start in enumerate(starts) if title.startswith(start)), len(starts))


def _line(place):
    """The classes that give a run's line its colour and stroke; no two runs have all the same."""
    cycle, colour = divmod(place, COLOURS)
    again, stroke = divmod(cycle, len(DASHES))
    return f"run{colour}{DASHES[stroke]}" + f" again{again}" * bool(again)


def _cells(name, cells):
    """(text or number, whether it is the best of all) for each run."""
    numbers = [cell for cell in cells if type(cell) in (int, float) and cell == cell]
    split = name.startswith(("test_", "validation_", "epoch_train_"))
    best = None
    if split and len(set(numbers)) > 1 and not name.endswith((*RATES, STD)):
        best = (min if lower_is_better(name) else max)(numbers)
    return [
        (cell if type(cell) in (int, float) else str(cell), best is not None and cell == best)
        for cell in cells
    ]


def _seconds(runs):
    """The row of how long epochs took, in a dict; empty where no run knows."""
    clocks = [read_lines(run / "timing.jsonl") for run in runs]
    times = [[line["seconds"] for line in clock if "seconds" in line] for clock in clocks]
    medians = [statistics.median(one) if one else "-" for one in times]
    return {"seconds per epoch": medians} if any(times) else {}


def _title(runs):
    names = {run.resolve().parent.name for run in runs}
    return f"{len(runs)} runs of {names.pop()}" if len(names) == 1 else f"{len(runs)} runs"


def _home(runs):
    """The folder that holds all runs."""
    return Path(os.path.commonpath([run.resolve().parent for run in runs]))
