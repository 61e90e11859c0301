"""What differs between runs: config, code, data, versions and figures, as a table.

python -m training.report.compare RUN RUN ...
python -m training.report.compare saved/MNIST_Sample      all runs in a folder
"""

import argparse
import json
import sys
from pathlib import Path

from training.checkpoint.naming import latest
from training.checkpoint.reading import read
from training.common.records import flatten, rename_std
from training.provenance.record import read_record
from utils import UserError

WIDEST = 40  # characters of a cell


def main(argv=None):
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, two or more")
    runs = parser.parse_args(argv).runs
    try:
        print(compare(runs))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def compare(runs):
    """Returns the table of all in which run folders differ, and the figures of their last epochs.

    Raises:
        UserError: there are fewer than two, or one is no run folder.
    """
    runs = find_runs(runs)
    rows = [("", *(run.name for run in runs))]
    for title, section in differences(runs).items():
        rows += [(title, *[""] * len(runs))]
        rows += [(f"  {name}", *map(str, cells)) for name, cells in section.items()] or [
            ("  the same", *[""] * len(runs))
        ]
    return "\n".join([_table(rows), "", *verdicts(runs)])


def find_runs(paths):
    """Returns the run folders that paths stand for: themselves, or those in them.

    Raises:
        UserError: there are fewer than two, or one is no run folder.
    """
    runs = [run for path in paths for run in _runs(Path(path))]
    if len(runs) < 2:
        raise UserError(f"{runs[0]}: one run; expected two or more to compare")
    return runs


def differences(runs):
    """Returns {section: {name: [what each run has]}} of what differs, and the last epochs' figures.

    Args:
        runs: run folders.
    """
    records = [read_record(run) for run in runs]
    configs = [json.loads((run / "config.json").read_text(encoding="utf-8")) for run in runs]
    for record in records:
        record.pop("config", None)  # config.json is the same, and older runs have only that
    epochs = [_epochs(run) for run in runs]
    return {
        "config": _differing(configs),
        "made from": _differing(records),
        "last epoch": _side_by_side([run[-1] if run else {} for run in epochs]),
    }


def verdicts(runs):
    """Yields in words whether each run's figures and weights are those of the first, to the bit."""
    first, weights = _lines(runs[0]), _weights(runs[0])
    for run in runs[1:]:
        pairs = zip(first, lines := _lines(run), strict=False)
        step = next((one["step"] for one, other in pairs if one != other), None)
        if step is not None:
            yield f"{run.name}: its figures are others from step {step} on"
        elif len(lines) != len(first):
            yield f"{run.name}: its figures are the same, as far as both runs have come"
        else:
            yield f"{run.name}: its figures are the same to the bit"
        same = weights is not None and weights == _weights(run)
        yield f"{run.name}: its latest checkpoint holds {'the same' if same else 'other'} bits"


def _runs(path):
    """The run folder, or those in it."""
    runs = sorted(config.parent for config in path.glob("*/config.json"))
    if (path / "config.json").is_file() or not runs:
        runs = [path]
    if not (runs[0] / "config.json").is_file():
        raise UserError(f"{path}: no config.json is here; expected a run folder, or one of them")
    return runs


def _differing(trees):
    """{path: a text for each run} of the leaves that are not the same in all."""
    rows = _side_by_side([dict(flatten(tree)) for tree in trees])
    return {name: cells for name, cells in rows.items() if len(set(cells)) > 1}


def _side_by_side(records):
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name, "-") for record in records] for name in names}


def _epochs(run):
    """The figures of each epoch's end."""
    lines = _lines(run)
    return [line for line in lines if "batch" not in line]


def _lines(run):
    path = run / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [rename_std(json.loads(line)) for line in text.splitlines()]


def _weights(run):
    path = latest(run)
    return path and {name: array.tobytes() for name, array in read(path)[0].items()}


def _table(rows):
    rows = [[_short(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _short(text):
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


if __name__ == "__main__":
    sys.exit(main())
