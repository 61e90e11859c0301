"""Records of runs: JSON lines, nested dicts as flat names, and the differences of two records."""

import json
from pathlib import Path

STD = "_std"  # ends the name of a standard deviation over the seeds of training.seeds


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

    Names that older runs ended in "_spread" are returned with "_std".
    """

    def current(name):
        return name.removesuffix("_spread") + STD if name.endswith("_spread") else name

    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    lines = filter(None, map(parse_record, text.splitlines()))
    return [{current(name): value for name, value in line.items()} for line in lines]


def parse_record(text):
    """Returns the JSON object of a text, {} where it is anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


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
