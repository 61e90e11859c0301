"""The lock on a run folder."""

import contextlib
from pathlib import Path

from utils import UserError

_held = None  # the open file by which this process holds a run folder


def lock(folder):
    """Keeps other processes from training in a run folder until `let_go`, or this one's end.

    The system ends a dead process's hold; a file system without locks has none.

    Raises:
        UserError: another process has it.
    """
    global _held
    unlock()
    with contextlib.suppress(ImportError, OSError):  # Windows has no fcntl
        import fcntl

        _held = open(Path(folder, "train.log"), "ab")  # noqa: SIM115
        try:
            fcntl.flock(_held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another process is training this run; wait for it, or end it first"
            ) from None


def unlock():
    """Ends the hold on a run folder, if there is one."""
    global _held
    if _held is not None:
        _held.close()
        _held = None
