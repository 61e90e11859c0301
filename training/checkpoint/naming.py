"""Names of checkpoints, and which of a run folder's to take."""

import math
import os
import re
from datetime import datetime
from pathlib import Path

from training.checkpoint.single_file import some
from training.common import files
from training.common.files import PREVIOUS, disk_errors
from training.distributed import processes
from utils import UserError, latest_run

BEST = "checkpoint-best.params"
NUMBERED = re.compile(r"checkpoint-epoch_([0-9]+)(?:-batch_([0-9]+))?\.params")


def file_name(epoch: int, batch: int | None = None) -> str:
    """Returns the name for the end of `epoch`, or for when `batch` batches of it are done."""
    return f"checkpoint-epoch_{epoch}{'' if batch is None else f'-batch_{batch}'}.params"


def numbered(folder: str | Path) -> list[Path]:
    """Returns the folder's numbered checkpoints, oldest first; an epoch's end ends the epoch."""
    with disk_errors(folder):
        names = os.listdir(folder) if os.path.isdir(folder) else []
    found = sorted((name for name in names if NUMBERED.fullmatch(name)), key=_position)
    return [path for name in found if is_there(path := Path(folder, name))]


def latest(folder: str | Path) -> Path | None:
    """Returns the path of the last numbered checkpoint, or None."""
    return next(reversed(numbered(folder)), None)


def best(folder: str | Path) -> Path | None:
    """Returns the path of the best checkpoint, or None."""
    names = (BEST, BEST + PREVIOUS)  # the latter if a process was killed while it replaced it
    return next((path for name in names if is_there(path := Path(folder, name))), None)


def find(path: str | Path, prefer_best: bool = False) -> Path:
    """Returns the checkpoint that `path` names: itself, or a run folder's latest or best.

    A folder whose only checkpoint is the best gives that as its latest.

    Raises:
        UserError: if there is none.
    """
    if is_there(path):
        return Path(path)
    found = best(path) if prefer_best else latest(path) or best(path)
    if found is None:
        folder = path if os.path.isdir(path) else Path(path).parent
        there = [file.name for file in (best(folder), *reversed(numbered(folder))) if file]
        kind = "best checkpoint" if prefer_best else "checkpoint"
        raise UserError(f"{path}: there is no {kind} here; {folder} has {some(there)}.")
    return found


def never_saved(path: str | Path) -> bool:
    """Whether this is the folder of a run that was killed before its first checkpoint."""
    return Path(path, "config.json").is_file() and not (numbered(path) or best(path))


def find_run(path: str | Path) -> tuple[Path, Path | None]:
    """Returns what `--resume` names: the run folder and the checkpoint, None if it saved nothing.

    Args:
        path: a checkpoint, a run folder, or "latest".
    """
    path = latest_run("saved") if path == "latest" else Path(path)
    path = Path(processes.broadcast(str(path if never_saved(path) else find(path))))
    return (path, None) if never_saved(path) else (path.parent, path)


def set_aside_after(folder: str | Path, epoch: int, batch: int | None = None) -> Path | None:
    """Moves the numbered checkpoints that are further in training into a folder of their own.

    To be called when a run goes on from an older one: those are of a future that it may not have,
    so neither `latest` nor what is saved from now on should meet them.

    Args:
        folder: the run folder.
        epoch, batch: the place gone on from, as in `file_name`.

    Returns:
        the path of the new folder in the run folder, or None if there was nothing to move.
    """
    here = _position(file_name(epoch, batch))
    later = [path for path in numbered(folder) if _position(path.name) > here]
    if not later:
        return None
    aside = Path(folder, f"set-aside-{datetime.now():%Y-%m-%d_%H-%M-%S_%f}")
    with disk_errors(folder):
        aside.mkdir()
        for path in reversed(later):  # killed on the way, the latest left is the one before
            os.replace(path, aside / path.name)
    return aside


def _position(name):
    """How far in training a numbered checkpoint is: (epoch, batches of it)."""
    ((epoch, batch),) = NUMBERED.findall(name)
    return int(epoch), int(batch) if batch else math.inf


def is_there(path):
    """Whether this is a file, or a folder that Orbax wrote."""
    return os.path.isfile(path) or files.is_orbax_folder(path)
