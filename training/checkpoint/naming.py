"""Names of checkpoints, and which one of a run folder to use."""

import json
import math
import os
import re
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from training.common.files import PREVIOUS, disk_errors, is_orbax_folder
from training.common.locks import lock
from training.distributed.processes import broadcast, is_main
from utils import UserError, latest_run

BEST = "checkpoint-best.params"
NUMBERED = re.compile(r"checkpoint-epoch_([0-9]+)(?:-batch_([0-9]+))?\.params")
LISTED = 10  # names of each kind that an error lists


def file_name(epoch: int, batch: int | None = None) -> str:
    """Returns the name of the checkpoint at the end of epoch 1, 2, ... or after a batch of it."""
    return f"checkpoint-epoch_{epoch}{'' if batch is None else f'-batch_{batch}'}.params"


def numbered(folder: str | Path) -> list[Path]:
    """Returns the folder's numbered checkpoints, oldest first; the end of an epoch is its last."""
    with disk_errors(folder):
        names = os.listdir(folder) if os.path.isdir(folder) else []
    found = sorted((name for name in names if NUMBERED.fullmatch(name)), key=_position)
    return [path for name in found if exists(path := Path(folder, name))]


def latest(folder: str | Path) -> Path | None:
    """Returns the path of the last numbered checkpoint, or None."""
    return next(reversed(numbered(folder)), None)


def best(folder: str | Path) -> Path | None:
    """Returns the path of the best checkpoint, or None."""
    names = (BEST, BEST + PREVIOUS)  # the latter if a process was killed while it replaced it
    return next((path for name in names if exists(path := Path(folder, name))), None)


def find(path: str | Path, prefer_best: bool = False) -> Path:
    """Returns the checkpoint that `path` names: itself, or a run folder's latest or best.

    A folder that has only one of the two kinds gives that one: a run without `training.monitor` has
    no best.

    Raises:
        UserError: the path names no checkpoint.
    """
    if exists(path):
        return Path(path)
    found = (best(path) or latest(path)) if prefer_best else (latest(path) or best(path))
    if found is None:
        folder = path if os.path.isdir(path) else Path(path).parent
        known = [file.name for file in (best(folder), *reversed(numbered(folder))) if file]
        raise UserError(f"{path}: there is no checkpoint here; {folder} has {listed(known)}.")
    return found


def never_saved(path: str | Path) -> bool:
    """Whether this is the folder of a run that was killed before its first checkpoint."""
    return Path(path, "config.json").is_file() and not (numbered(path) or best(path))


def find_run(path: str | Path, to_train: bool = False) -> tuple[Path, Path | None]:
    """Returns the run folder and the checkpoint to resume from, None if the run saved nothing.

    `path` is a checkpoint, a run folder, or "latest". To train it, the folder is locked first, so
    that what is found is still the latest when it is read.

    Raises:
        UserError: there is no such checkpoint, or another process is training the run.
    """
    path = latest_run("saved") if path == "latest" else Path(path)
    if to_train and is_main():
        folder = path.parent if exists(path) else path
        if Path(folder, "config.json").is_file():
            lock(folder)
    found = json.loads(broadcast(json.dumps(_found(path))))
    return Path(found[0]), found[1] and Path(found[1])


def _found(path):
    """The run folder and the checkpoint, or None, as texts."""
    if never_saved(path):
        return str(path), None
    path = find(path)
    return str(path.parent), str(path)


def set_aside_after(folder: str | Path, epoch: int, batch: int | None = None) -> Path | None:
    """Moves the numbered checkpoints that are later than this position into a folder of their own.

    Called when a run resumes from an older checkpoint: its training may now differ from what the
    later ones hold, so `latest` must not find them, and new checkpoints must not replace them.
    Returns the path of the new folder in the run folder, or None if no checkpoint is later.
    """
    position = _position(file_name(epoch, batch))
    later = [path for path in numbered(folder) if _position(path.name) > position]
    if not later:
        return None
    aside = Path(folder, f"set-aside-{datetime.now():%Y-%m-%d_%H-%M-%S_%f}")
    with disk_errors(folder):
        aside.mkdir()
        for path in reversed(later):  # after a kill in between, the latest left is an earlier one
            os.replace(path, aside / path.name)
    return aside


def exists(path: str | Path) -> bool:
    """Whether this is a file, or a folder that Orbax wrote."""
    return os.path.isfile(path) or is_orbax_folder(path)


def listed(names: Collection[str]) -> str:
    """Returns the first few names as one string."""
    shown = ", ".join(list(names)[:LISTED]) or "none"
    return shown if len(names) <= LISTED else f"{shown}, ... ({len(names)} in all)"


def _position(name):
    """How far in training a numbered checkpoint is: (epoch, batches of it)."""
    ((epoch, batch),) = NUMBERED.findall(name)
    return int(epoch), int(batch) if batch else math.inf
