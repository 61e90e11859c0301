"""Prints a table of what differs between runs: config, code, data, versions and metrics.

python -m training.report.compare RUN RUN ...
python -m training.report.compare saved/MNIST_Sample      all runs in a folder
"""

import argparse
import sys
from pathlib import Path

from training.checkpoint.naming import latest
from training.checkpoint.reading import read
from training.common.records import flatten, has_results, read_lines, read_record
from training.common.tables import text_table
from utils import UserError, command

RECORDS = ("config.json", "environment.json")  # of a run folder
MAX_CELL = 40  # characters


@command
def main(argv=None):
    """Prints the table."""
    print(compare(parser("training.report.compare", __doc__).parse_args(argv).runs))


def parser(module, description):
    """Returns the parser of a command that takes run folders."""
    layout = argparse.RawDescriptionHelpFormatter
    found = argparse.ArgumentParser(
        f"python -m {module}", description=description, formatter_class=layout
    )
    found.add_argument("runs", nargs="+", metavar="RUN", help="run folders, two or more")
    return found


def compare(paths):
    """Returns the table of what differs between runs, and of the metrics of their last epochs.

    Args:
        paths: run folders, or folders of them.

    Raises:
        UserError: there are fewer than two, or one is not a run folder.
    """
    runs = find_runs(paths)
    rows = [("", *(run.name for run in runs))]
    for title, section in differences(runs).items():
        rows += [(title, *[""] * len(runs))]
        rows += [(f"  {name}", *map(str, cells)) for name, cells in section.items()] or [
            ("  the same", *[""] * len(runs))
        ]
    rows = [[_shorten(cell) for cell in row] for row in rows]
    return "\n".join([*text_table(rows, "<" * len(rows[0])), "", *bit_comparison(runs)])


def find_runs(paths):
    """Returns the run folders that paths name: themselves, or those in them."""
    runs = [run for path in paths for run in _runs(Path(path))]
    if len(runs) < 2:
        raise UserError(f"{runs[0]}: one run; expected two or more to compare")
    return runs


def differences(runs):
    """Returns {section: {name: [value of each run]}}: what differs, the last epochs' metrics."""
    configs, environments = ([read_record(run / name) for run in runs] for name in RECORDS)
    for record in environments:
        record.pop("config", None)  # config.json has the same, and older runs have only that
    epochs = [[line for line in _metrics(run) if has_results(line)] for run in runs]
    return {
        "config": _differing(configs),
        "code, data, versions": _differing(environments),
        "last epoch": _side_by_side([lines[-1] if lines else {} for lines in epochs]),
    }


def bit_comparison(runs):
    """Yields a line for the metrics and the weights of each run: whether the first's are equal."""
    first, weights = _metrics(runs[0]), _weights(runs[0])
    for run in runs[1:]:
        pairs = zip(first, lines := _metrics(run), strict=False)
        step = next((one.get("step", "?") for one, other in pairs if one != other), None)
        if step is not None:
            yield f"{run.name}: its metrics differ from step {step} on"
        elif len(lines) != len(first):
            yield f"{run.name}: its metrics are the same as far as both runs have trained"
        else:
            yield f"{run.name}: its metrics are the same to the bit"
        same = weights is not None and weights == _weights(run)
        yield f"{run.name}: its latest checkpoint has {'the same' if same else 'other'} bits"


def _runs(path):
    """The run folder, or those in it."""
    runs = sorted(config.parent for config in path.glob("*/config.json"))
    if (path / "config.json").is_file() or not runs:
        runs = [path]
    if not (runs[0] / "config.json").is_file():
        raise UserError(
            f"{path}: no config.json is here; expected a run folder, or a folder of runs"
        )
    return runs


def _differing(trees):
    """{path: a text for each run} of the leaves that are not the same in all."""
    rows = _side_by_side([dict(flatten(tree)) for tree in trees])
    return {name: cells for name, cells in rows.items() if len(set(cells)) > 1}


def _side_by_side(records):
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name, "-") for record in records] for name in names}


def _metrics(run):
    return read_lines(run / "metrics.jsonl")


def _weights(run):
    path = latest(run)
    return path and {name: array.tobytes() for name, array in read(path)[0].items()}


def _shorten(text):
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 3]}..."


if __name__ == "__main__":
    sys.exit(main())
