"""Locks that a killed owner does not leave behind, and files that have their name once complete."""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from utils import UserError, printable

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

WINDOWS = fcntl is None  # where nobody can remove or rename an open file


def try_lock(file: IO) -> bool:
    """Locks an open file until it is closed, or the process ends; returns whether it could.

    On Windows and on file systems without locks it does nothing, and returns True.
    """
    with contextlib.suppress(OSError):
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def is_at(file: IO, path: str | Path) -> bool:
    """Whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def open_locked(path: str | Path) -> BinaryIO | None:
    """Opens a file to append and read, and locks it; returns None if another process has it."""
    while True:
        file = open(path, "a+b")  # noqa: SIM115
        if not try_lock(file):
            file.close()
            return None
        if is_at(file, path):
            return file
        file.close()  # its last owner has just removed it


@contextlib.contextmanager
def whole_file(path: str | Path, alone: bool = False) -> Iterator[BinaryIO]:
    """Yields a file to write to, which gets its name when the block ends without an error.

    Until then it has a name of its own and a lock, so that several processes may write it at once,
    and what a killed one has left is known.

    Args:
        path: the name.
        alone: refuse another process that begins to write it meanwhile.

    Raises:
        UserError: another process is writing it, alone.
    """
    unfinished, owned = _open_unfinished(path, alone)
    with owned:
        try:
            with open(unfinished, "r+b") as file:
                file.truncate()
                yield file
            if WINDOWS:
                owned.close()
            os.replace(unfinished, path)
        except BaseException:
            if WINDOWS:
                owned.close()
            unfinished.unlink(missing_ok=True)
            raise


def _open_unfinished(path, alone):
    while True:
        unfinished = Path(f"{path}.part" if alone else f"{path}.{secrets.token_hex(4)}.tmp")
        if owned := open_locked(unfinished):
            return unfinished, owned
        if alone:
            raise UserError(f"{printable(path)}: another process is writing it; wait for it")


def remove_abandoned(folder: Path, name: str) -> None:
    """Removes what killed processes left of files that `whole_file` writes.

    Args:
        folder: their folder.
        name: regular expression of their names.
    """
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        if re.fullmatch(rf"{name}\.[0-9a-f]{{8}}\.tmp", path.name):
            with contextlib.suppress(OSError), open(path, "r+b") as file:
                if try_lock(file):
                    path.unlink()
