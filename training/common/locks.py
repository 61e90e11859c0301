"""The lock on a run folder, and folders that others may rename or remove."""

import contextlib
import os
from pathlib import Path

from data_loader.locked_files import is_at, open_locked
from utils import UserError

_lock_file = None  # the open file that holds this process's lock on a run folder


def lock(folder, file="train.log"):
    """Keeps other processes from training in a run folder until `unlock`, or the process ends.

    Does nothing where this process has that lock, or where it cannot write.

    Raises:
        UserError: another process has the lock.
    """
    global _lock_file
    path = Path(folder, file)
    if _lock_file is not None and is_at(_lock_file, path):
        return
    unlock()
    with contextlib.suppress(OSError):
        _lock_file = open_locked(path)
        if _lock_file is None:
            raise UserError(
                f"{folder}: another process is training this run; wait for it, or end it first"
            )


def is_locked(folder, file="train.log"):
    """Whether the file by which this process has locked a run folder still has its name."""
    return _lock_file is None or is_at(_lock_file, Path(folder, file))


def unlock():
    """Releases the lock on a run folder, if this process holds one."""
    global _lock_file
    if _lock_file is not None:
        _lock_file.close()
        _lock_file = None


class Folder:
    """A folder that is known again after others renamed, removed or replaced it."""

    def __init__(self, path):
        self._path = Path(path)
        self._open()

    def _open(self):
        self._descriptor = None
        with contextlib.suppress(OSError):  # Windows opens no folders
            self._descriptor = os.open(self._path, os.O_RDONLY)

    def is_in_place(self):
        """Whether it has its name; one that was removed is replaced by a new one of that name."""
        if self._descriptor is None:
            return self._path.is_dir()
        try:
            own, now = os.fstat(self._descriptor), os.stat(self._path)
        except OSError:
            return False
        if not os.path.samestat(own, now):
            if own.st_nlink or self._path.is_symlink():  # it is elsewhere, or this leads elsewhere
                return False
            self.close()
            self._open()
        return True

    def close(self):
        """Lets go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
