"""Records of runs: JSON lines, nested dicts as flat names, and the differences of two records."""

import json
import logging
import math
import re
from pathlib import Path

LONGEST = 2**24  # characters of a line or a record
LOG = logging.getLogger("main")
STD = "_std"  # ends the name of a standard deviation over the seeds of training.seeds
RESULTS = ("epoch_train_", "validation_", "test_")  # begin the names of results


def flatten(tree, path=""):
    """Yields the leaves of nested dicts as (path, text), the path as on the command line."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{path}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{path}{key}", text


def read_lines(path: Path) -> list[dict]:
    """Returns the objects of a file of JSON lines, except one cut short by a killed run.

    Other lines that hold no numbers of a run are left out with a warning. Names that older runs
    ended in "_spread" are returned with "_std".
    """

    def current(name):
        return name.removesuffix("_spread") + STD if name.endswith("_spread") else name

    lines, others = [], []
    if not path.is_file():
        return lines
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, text in enumerate(iter(lambda: file.readline(LONGEST), ""), start=1):
            line = parse_record(text)
            if line and _is_metrics(line):
                lines.append({current(name): value for name, value in line.items()})
            elif text.endswith("\n") or len(text) == LONGEST:
                others.append(number)
    if others:
        LOG.warning("%s: %d lines hold no numbers, line %d first", path, len(others), others[0])
    return lines


def has_results(line):
    """Whether a line has the results of an epoch or of an evaluation within one."""
    return "batch" not in line or any(name.startswith(RESULTS) for name in line)


def read_record(path: Path) -> dict:
    """Returns the JSON object in a file, {} where it is missing or holds none."""
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8", errors="replace") as file:
        return parse_record(file.read(LONGEST))


def parse_record(text):
    """Returns the JSON object of a text, {} where it is anything else."""
    try:
        value = json.loads(text)
        json.dumps(value)  # what is nested too deeply to be shown
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def without_password(text):
    """Returns a text without the names and passwords that are in its addresses."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _is_metrics(line):
    """Whether a line holds numbers as a run writes them."""
    positions = [line[name] for name in ("epoch", "batch", "step") if name in line]
    return all(type(one) is int and 0 <= one < 2**53 for one in positions) and all(
        map(_is_number, line.values())
    )


def _is_number(value):
    """Whether a value is a number that a float can hold, null, or a list of such."""
    if isinstance(value, list):
        return all(map(_is_number, value))
    return value is None or (type(value) in (int, float) and not 1e300 < abs(value) < math.inf)


def changes(before, now, differ="was {}, is {}"):
    """Returns a line for each difference of two nested dicts: "seed: was 0, is 1"."""
    old, new = (dict(flatten(record)) for record in (before, now))
    lines = []
    for name in old | new:
        old_value, new_value = old.get(name, "not there"), new.get(name, "not there")
        if old_value == new_value:
            continue
        if name.startswith("code.") and "not there" in (old_value, new_value):
            continue  # not every start imports every module
        lines.append(f"{name}: {differ.format(old_value, new_value)}")
    return lines
