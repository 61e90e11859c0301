"""Locks that a killed owner does not leave behind, and files that have their name once complete."""

import contextlib
import os
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
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Yields a file to write to, which gets its name when the block ends without an error.

    Until then it is `<path>.part`, locked: one process writes it. The next one begins again what a
    killed process has left.

    Raises:
        UserError: another process is writing it.
    """
    part = Path(f"{path}.part")
    owned = open_locked(part)
    if owned is None:
        raise UserError(
            f"{printable(path)}: another process is writing it; wait for it, or give another name"
        )
    with owned:
        try:
            with open(part, "r+b") as file:
                file.truncate()
                yield file
            if WINDOWS:
                owned.close()
            os.replace(part, path)
        except BaseException:
            if WINDOWS:
                owned.close()
            part.unlink(missing_ok=True)
            raise
