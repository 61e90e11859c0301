"""The lock on a run folder."""

import contextlib
from pathlib import Path

from utils import UserError

_lock_file = None  # the open file that holds this process's lock


def lock(folder):
    """Keeps other processes from training in a run folder until `unlock`, or the process ends.

    The operating system releases the lock of a dead process. On a file system without locks this
    does nothing.

    Raises:
        UserError: another process holds the lock.
    """
    global _lock_file
    unlock()
    with contextlib.suppress(ImportError, OSError):  # Windows has no fcntl
        import fcntl

        _lock_file = open(Path(folder, "train.log"), "ab")  # noqa: SIM115
        try:
            fcntl.flock(_lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another process is training this run; wait for it, or end it first"
            ) from None


def unlock():
    """Releases the lock on a run folder, if this process holds one."""
    global _lock_file
    if _lock_file is not None:
        _lock_file.close()
        _lock_file = None
