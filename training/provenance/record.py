"""The record of what a run was made from, and warnings of what changed when it is resumed.

environment.json holds the config, checksums of the code and of the data, versions, device and git
revision; uncommitted.diff what was not committed.
"""

import functools
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import zlib
from importlib import metadata
from pathlib import Path

import jax
import numpy as np

import utils
from data_loader.streams import is_stream
from training.checkpoint.foreign import checksums, in_folder, is_foreign
from training.common.files import atomic_write_text, hard_link
from training.common.kept_files import KEYS, ignored_by_git, is_secret
from training.common.old_config import rename_old_keys
from training.common.records import changes, read_record

RECORD, DIFF = "environment.json", "uncommitted.diff"
PACKAGES = ("data_loader", "training")  # all their files count, whether imported or not
LARGEST_DIFF = 2**20  # characters
LISTED, LONGEST_CHANGE = 20, 300  # changes in the log; characters of one
TIMEOUT = 10  # seconds for git
PASSWORDS = re.compile(  # in the text of a file
    r"\b(api_?key|secret|password|passwd|token)\w*[\"']?\s*[:=]\s*[\"'][^\"'\s]{16}", re.IGNORECASE
)
LOG = logging.getLogger("main")


def record_provenance(config, folder, experiment, parameters):
    """Writes the record of a run, and warns of each difference from its previous record.

    `parameters` is the number of the network's parameters.
    """
    diff = uncommitted(utils.ROOT)
    now = environment() | {"parameters": parameters} | fingerprint(config, folder, experiment)
    now["uncommitted"] = _checksum(diff.encode())
    before = read_record(folder / RECORD)
    if weights := before.get("weights") or _weights(config.training.checkpoint):
        now["weights"] = weights
    if isinstance(before.get("config"), dict):
        rename_old_keys(before["config"])
    changed = changes(before, now) if before else []
    for line in changed[:LISTED]:
        LOG.warning("Changed since this run was last started: %s", line[:LONGEST_CHANGE])
    if len(changed) > LISTED:
        LOG.warning("... and %d more changes", len(changed) - LISTED)
    if changed:
        _keep_earlier(folder)
    atomic_write_text(folder / RECORD, json.dumps(now, indent=4) + "\n")
    if diff:
        atomic_write_text(folder / DIFF, diff, private=True)


def record_import(config, folder, weights):
    """Writes the record of a checkpoint made of {file name: SHA-256} of another program."""
    now = environment() | {"config": config.model_dump(mode="json"), "weights": weights}
    atomic_write_text(folder / RECORD, json.dumps(now, indent=4) + "\n")


def uncommitted(project: Path) -> str:
    """Returns the difference from the last commit, "" where there is none or git fails.

    Files that git ignores or that may hold a secret are left out, and named in its first lines.
    """
    options = (
        "--no-color --no-ext-diff --no-textconv --no-renames --relative --submodule=short HEAD"
    )
    names = _git(f"diff --name-only -z {options}", project).split("\0")[:-1]
    pieces = re.split("^(?=diff --git )", _git(f"diff {options}", project), flags=re.MULTILINE)[1:]
    if len(names) != len(pieces):  # in the middle of a merge
        pieces = [f"# {name}\n" for name in names]
    ignored = ignored_by_git(set(names), project)
    left_out, shown = [], []
    for name, piece in zip(names, pieces, strict=True):
        secret = name in ignored or is_secret(name) or KEYS.search(piece) or PASSWORDS.search(piece)
        (left_out if secret else shown).append(name if secret else piece)
    reason = "git ignores it, or it may hold a secret"
    notes = [f"# left out: {name!r} ({reason})\n" for name in left_out]
    return "".join([*notes, *shown])[:LARGEST_DIFF]


def fingerprint(config, folder, experiment):
    """Returns what a run is made from, whatever the machine: config, code and data."""
    return {
        "config": config.model_dump(mode="json"),
        "code": code_checksums(folder),
        "data": {split: data_checksum(loader) for split, loader in experiment.loaders.items()},
    }


def environment(repository: Path = utils.ROOT) -> dict:
    """Returns the git revision of a folder, the versions and the machine.

    The revision is the commit's hash, with "-dirty" where tracked files have changed since.
    """
    revision = _git("describe --always --dirty --abbrev=40 --exclude=*", repository).strip()
    devices = jax.devices()
    return {
        "git_revision": revision or "unknown",
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": f"{len(devices)} × {devices[0].device_kind}",
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "packages": _packages(),
    }


def _weights(wanted):
    """{file name: SHA-256} of the file of another program that a run begins with, if it does."""
    path = wanted and in_folder(Path(wanted.path))
    return checksums(path) if path and path.is_file() and is_foreign(path) else None


@functools.cache
def _packages():
    """{name: version} of what is installed, in order of the names."""
    packages = {package.name: package.version for package in metadata.distributions()}
    return dict(sorted(packages.items(), key=lambda package: package[0].lower()))


def code_checksums(folder):
    """Returns {path: CRC-32} of the project's Python files.

    They are train.py, utils.py, all files of PACKAGES and every other file that has been imported.
    A file of the run folder, as its copy of the network, counts under the path of the original.
    """
    files = [Path(getattr(one, "__file__", None) or "/") for one in list(sys.modules.values())]
    files += [utils.ROOT / "train.py", utils.ROOT / "utils.py"]
    files += [file for package in PACKAGES for file in (utils.ROOT / package).rglob("*.py")]
    bases, checksums = (Path(folder).resolve(), utils.ROOT), {}
    for file in files:
        base = next((base for base in bases if file.is_relative_to(base)), None)
        if base and file.suffix == ".py" and "site-packages" not in file.parts:
            checksums[str(file.relative_to(base))] = _checksum(file.read_bytes())
    return dict(sorted(checksums.items()))


def data_checksum(loader):
    """Returns a CRC-32 of a loader's data: the data set's own `checksum()`, or of a few examples.

    Data that differ at each reading have none: "not repeatable".
    """
    if hasattr(loader.dataset, "checksum"):
        return loader.dataset.checksum()
    if is_stream(loader.dataset):
        return "a stream"  # which may be endless
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
    """Gives the record and the diff of the previous start a number."""
    number = 1 + len(list(folder.glob(f"*-{RECORD}")))
    if (folder / DIFF).exists():
        os.replace(folder / DIFF, folder / f"{number}-{DIFF}")
    if (folder / RECORD).exists() and not hard_link(
        folder / RECORD, earlier := folder / f"{number}-{RECORD}"
    ):  # it stays, as others may read it now
        shutil.copyfile(folder / RECORD, earlier)


def _git(command, repository):
    """Returns what a git command prints, "" where there is no git or it takes too long."""
    command = ["git", "--no-optional-locks", *command.split()]
    try:
        done = subprocess.run(command, cwd=repository, capture_output=True, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")
