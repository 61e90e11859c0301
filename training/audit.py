"""What a run was made from, on record; and what of it has changed when the run goes on.

environment.json holds the config, checksums of the code and of the data, versions, device and git
revision; uncommitted.diff what had not been committed.
"""

import json
import logging
import os
import subprocess
import sys
import zlib
from pathlib import Path

import jax
import numpy as np

import utils
from training.files import place_text
from training.report import environment, flatten

RECORD, DIFF = "environment.json", "uncommitted.diff"
HOMES = ("data_loader", "training")  # packages that count as a whole
LARGEST_DIFF = 2**20  # characters
LISTED = 20  # changes that are told
LOG = logging.getLogger("main")


def audit(config, folder, parts, parameters):
    """Writes the record of a run; warns about all that differs from the one that is there.

    Args:
        config: the run's Config.
        folder: the run folder.
        parts: what `build` returned.
        parameters: number of the network's parameters.
    """
    now = environment() | {"parameters": parameters} | ingredients(config, folder, parts)
    diff = _git_diff()
    now["uncommitted"] = _checksum(diff.encode())
    before = read_record(folder)
    changed = changes(before, now) if before else []
    for line in changed[:LISTED]:
        LOG.warning("Changed since this run was last started: %s", line)
    if len(changed) > LISTED:
        LOG.warning("... and %d more changes", len(changed) - LISTED)
    if changed:
        _keep_earlier(folder)
    place_text(folder / RECORD, json.dumps(now, indent=4) + "\n")
    if diff:
        place_text(folder / DIFF, diff)


def ingredients(config, folder, parts):
    """Returns what makes a run, whatever machine it is on: its config, code and data, as words."""
    return {
        "config": config.model_dump(mode="json"),
        "code": code_checksums(folder),
        "data": {split: data_checksum(loader) for split, loader in parts.loaders.items()},
    }


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


def read_record(folder):
    """Returns the record in a run folder, {} if there is none to be read."""
    try:
        record = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def code_checksums(folder):
    """Returns {path: CRC-32} of the project's code, and of what else of it has been imported.

    A run's own copy of its network stands for what it was copied from.
    """
    files = [Path(getattr(one, "__file__", None) or "/") for one in list(sys.modules.values())]
    files += [utils.ROOT / "train.py", utils.ROOT / "utils.py"]
    files += [file for home in HOMES for file in (utils.ROOT / home).glob("*.py")]
    bases, checksums = (Path(folder).resolve(), utils.ROOT), {}
    for file in files:
        base = next((one for one in bases if file.is_relative_to(one)), None)
        if base and file.suffix == ".py" and "site-packages" not in file.parts:
            checksums[str(file.relative_to(base))] = _checksum(file.read_bytes())
    return dict(sorted(checksums.items()))


def data_checksum(loader):
    """Returns a CRC-32 of a loader's data: the data set's own `checksum()`, or of a few examples.

    Data that are made anew at each reading have none: "not repeatable".
    """
    if hasattr(loader.dataset, "checksum"):
        return loader.dataset.checksum()
    examples = len(loader.dataset)
    some = np.unique([0, examples // 2, examples - 1])

    def read():
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(loader.read(some))]
        return _checksum(str(examples).encode(), *(leaf.tobytes() for leaf in leaves))

    checksum = read()
    return checksum if read() == checksum else "not repeatable"


def _checksum(*pieces):
    value = 0
    for piece in pieces:
        value = zlib.crc32(piece, value)
    return f"{value:08x}"


def _keep_earlier(folder):
    """Gives the record and the diff of the earlier start a number."""
    number = 1 + len(list(folder.glob(f"*-{RECORD}")))
    for name in (RECORD, DIFF):
        if (folder / name).exists():
            os.replace(folder / name, folder / f"{number}-{name}")


def _git_diff():
    """What is not committed of the tracked files."""
    try:
        command = ["git", "--no-optional-locks", "diff", "HEAD"]
        done = subprocess.run(command, cwd=utils.ROOT, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")[:LARGEST_DIFF]
