"""Records of runs: JSON lines, nested dicts as flat names, and what differs between two."""

import json
from pathlib import Path


def flatten(tree, path=""):
    """Yields the leaves of nested dicts as (path, text), the path as on the command line."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{path}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{path}{key}", text


def read_lines(path: Path) -> list[dict]:
    """Returns the objects of a file of JSON lines, without one cut short by a killed run."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [line for line in map(parse_record, text.splitlines()) if line]


def parse_record(text):
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def changes(before, now, differ="was {}, is {}"):
    """Returns a line for each thing that differs between two records: "seed: was 0, is 1"."""
    old, new = (dict(flatten(record)) for record in (before, now))
    lines = []
    for name in old | new:
        was, came = old.get(name, "not there"), new.get(name, "not there")
        if was == came:
            continue
        if name.startswith("code.") and "not there" in (was, came):
            continue  # not every start imports every module
        lines.append(f"{name}: {differ.format(was, came)}")
    return lines
