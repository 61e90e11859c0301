"""Shows several runs on one page.

python -m training.report RUN RUN ...
python -m training.report saved/MNIST_Sample       all runs in a folder
"""

import math
import os
import statistics
import sys
from pathlib import Path

from training.common.files import atomic_write_text
from training.common.records import STD, read_lines
from training.report.charts import RATES, chart, curves, last_x, lower_is_better
from training.report.compare import bit_comparison, differences, find_runs, parser
from training.report.render import render
from utils import command

COLOURS, DASHES = 8, ("", " dashed", " dotted")  # after 8 colours, runs have another dash
NO_DOTS = tuple(name.replace("_", " ") for name in RATES)  # of every interval: too many
SPLITS = {"test": "test", "validation": "validation", "train": "train", "interval": "train"}


@command
def main(argv=None):
    """Writes the page of several runs."""
    arguments = parser("training.report", __doc__)
    arguments.add_argument(
        "--out", metavar="FILE", help="the page; by default comparison.html beside the runs"
    )
    options = arguments.parse_args(argv)
    print(f"Look at {write_comparison(options.runs, options.out)}")


def write_comparison(paths, out=None):
    """Writes a page that compares runs, in one file that needs no network.

    Args:
        paths: run folders, or folders of them.
        out: the file; None: comparison.html in the folder that has them all.

    Returns:
        The path of the file.

    Raises:
        UserError: there are fewer than two runs, or one is not a run folder.
    """
    runs = find_runs(paths)
    sections = differences(runs)
    sections["last epoch"] |= _seconds(runs)
    rows = {
        title: [(name, _cells(name, cells)) for name, cells in section.items()]
        for title, section in sections.items()
    }
    html = render(
        "comparison.html.jinja",
        title=_title(runs),
        lines=[_line(index) for index in range(len(runs))],
        runs=[run.resolve().name for run in runs],
        charts=overlay([read_lines(run / "metrics.jsonl") for run in runs]),
        sections=rows,
        bit_comparison=list(bit_comparison(runs)),
    )
    common_folder = os.path.commonpath([run.resolve().parent for run in runs])
    path = Path(out or Path(common_folder, "comparison.html"))
    atomic_write_text(path, html)
    return path


def overlay(metrics):
    """Returns a chart for each metric of each split, with a line for each run that has it."""
    found = [curves(lines) for lines in metrics]
    # Without a finished epoch, the number of steps in an epoch is not known.
    unit = "epoch" if any(unit == "epoch" for _, unit in found) else "step"
    overlays = {}
    for index, (of_run, own_unit) in enumerate(found):
        for name, curve in of_run.items() if own_unit == unit else ():
            if "train" in curve:
                curve.pop("interval", None)
            for line, points in curve.items():
                title = f"{SPLITS[line]} {name}" if line in SPLITS else name
                overlays.setdefault(title, {})[_line(index)] = points
    labels = {_line(index): index + 1 for index in range(len(metrics))}
    end = last_x(overlays.values())
    order = sorted(overlays, key=_rank)
    shown = [chart(title, overlays[title], end, unit, labels) for title in order]
    return [one | {"dots": {}} if one["name"].endswith(NO_DOTS) else one for one in shown]


def _rank(title):
    """Test before validation before training, rates last; else in their own order."""
    starts = ("test ", "validation ", "train ")
    return next((rank for rank, start in enumerate(starts) if title.startswith(start)), len(starts))


def _line(index):
    """The classes that give a run's line its colour and dash; no two runs have the same classes."""
    cycle, colour = divmod(index, COLOURS)
    again, dash = divmod(cycle, len(DASHES))
    return f"run{colour}{DASHES[dash]}" + f" again{again}" * bool(again)


def _cells(name, cells):
    """(text or number, whether it is the best of all runs) for each run."""
    numbers = [cell for cell in cells if type(cell) in (int, float) and math.isfinite(cell)]
    split = name.startswith(("test_", "validation_", "epoch_train_"))
    best = None
    if split and len(set(numbers)) > 1 and not name.endswith((*RATES, STD)):
        best = (min if lower_is_better(name) else max)(numbers)
    return [
        (cell if type(cell) in (int, float) else str(cell), best is not None and cell == best)
        for cell in cells
    ]


def _seconds(runs):
    """The row of the epochs' median duration, in a dict; empty where no run has it."""
    timings = [read_lines(run / "timing.jsonl") for run in runs]
    times = [
        [line["seconds"] for line in lines if type(line.get("seconds")) in (int, float)]
        for lines in timings
    ]
    medians = [statistics.median(one) if one else "-" for one in times]
    return {"seconds per epoch": medians} if any(times) else {}


def _title(runs):
    names = {run.resolve().parent.name for run in runs}
    return f"{len(runs)} runs of {names.pop()}" if len(names) == 1 else f"{len(runs)} runs"


if __name__ == "__main__":
    sys.exit(main())
