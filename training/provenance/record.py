"""What a run was made from, on record; and what of it has changed when the run goes on.

environment.json holds the config, checksums of the code and of the data, versions, device and git
revision; uncommitted.diff what had not been committed.
"""

import json
import logging
import os
import platform
import subprocess
import sys
import zlib
from importlib import metadata
from pathlib import Path

import jax
import numpy as np

import utils
from training.common.files import atomic_write_text
from training.common.records import changes

RECORD, DIFF = "environment.json", "uncommitted.diff"
HOMES = ("data_loader", "training")  # packages that count as a whole
LARGEST_DIFF = 2**20  # characters
LISTED = 20  # changes that are told
LOG = logging.getLogger("main")


def record_provenance(config, folder, experiment, parameters):
    """Writes the record of a run; warns about all that differs from the one that is there.

    Args:
        config: the run's Config.
        folder: the run folder.
        parts: what `build` returned.
        parameters: number of the network's parameters.
    """
    now = environment() | {"parameters": parameters} | fingerprint(config, folder, experiment)
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
    atomic_write_text(folder / RECORD, json.dumps(now, indent=4) + "\n")
    if diff:
        atomic_write_text(folder / DIFF, diff)


def fingerprint(config, folder, experiment):
    """Returns what makes a run, whatever machine it is on: its config, code and data, as words."""
    return {
        "config": config.model_dump(mode="json"),
        "code": code_checksums(folder),
        "data": {split: data_checksum(loader) for split, loader in experiment.loaders.items()},
    }


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
    files += [file for home in HOMES for file in (utils.ROOT / home).rglob("*.py")]
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


def environment(repository: Path = utils.ROOT) -> dict:
    """Returns what a run depends on beside its config: git revision, machine, versions.

    Args:
        repository: the folder whose git revision counts.
    """
    devices = jax.devices()
    packages = {package.name: package.version for package in metadata.distributions()}
    return {
        "git_revision": _revision(repository),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": f"{len(devices)} × {devices[0].device_kind}",
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "packages": dict(sorted(packages.items(), key=lambda package: package[0].lower())),
    }


def _revision(repository):
    """The commit's hash, with "-dirty" where tracked files have been changed since."""
    command = "git --no-optional-locks describe --always --dirty --abbrev=40 --exclude=*"
    try:
        done = subprocess.run(
            command.split(), cwd=repository, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
