"""Files and folders that are there whole or not at all, and the disk's errors in words."""

import contextlib
import errno
import os
import re
import secrets
import shutil
import threading
import time
from pathlib import Path

from utils import UserError

_held = None  # the open file by which this process holds a run folder
UNFINISHED = re.compile(r".+\.[0-9a-f]{8}\.tmp")  # the name of what is not whole yet


class Pace:
    """Lets a background thread take but a share of the processors, until somebody waits for it.

    Attributes:
        hurry: an Event; once it is set there are no more rests.
    """

    SHARE = 0.025  # of all processors' time
    STINT = 0.002  # seconds of work between two rests

    def __init__(self):
        self.hurry, self._since = threading.Event(), None
        self._share = min(1, self.SHARE * (os.cpu_count() or 1))

    def rest(self):
        """Sleeps in proportion to the time worked since the last rest, if it is time for one."""
        now = time.thread_time()
        if self._since is None:
            self._since = now
        elif now - self._since >= self.STINT:
            self.hurry.wait((now - self._since) * (1 / self._share - 1))
            self._since = time.thread_time()


def chunks(buffer, size=2**20):
    """Yields a buffer of bytes in pieces."""
    view = memoryview(buffer)
    for start in range(0, len(view), size):
        yield view[start : start + size]


def place(path, pieces, rest=lambda: None):
    """Writes the buffers under a temporary name, and gives the file its own once it is on disk.

    Args:
        path: the file; one that is there is replaced.
        pieces: its content, buffers of bytes.
        rest: called again and again during the work.
    """
    path = Path(path)
    temporary = unfinished(path)
    try:
        with explained(path):
            with open(temporary, "xb") as file:
                for piece in pieces:
                    for chunk in chunks(piece):
                        file.write(chunk)
                        rest()
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def place_text(path, text):
    """Writes a text in UTF-8 as `place` does."""
    place(path, [text.encode()])


def unfinished(path):
    """Returns a name beside the path for what is to become it."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")


def clear_unfinished(folder):
    """Removes what a killed process left half-written in a folder."""
    for path in Path(folder).iterdir():
        if UNFINISHED.fullmatch(path.name):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def hold(folder):
    """Keeps other processes from training in a run folder until this one ends, or holds another.

    The system lets go of a dead process's hold; a file system without locks has none.

    Raises:
        UserError: another process has it.
    """
    global _held
    if _held is not None:
        _held.close()
        _held = None
    with contextlib.suppress(ImportError, OSError):  # Windows has no fcntl
        import fcntl

        _held = open(Path(folder, "train.log"), "ab")  # noqa: SIM115
        try:
            fcntl.flock(_held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another process is training this run; wait for it, or end it first"
            ) from None


@contextlib.contextmanager
def explained(path):
    """Turns an error of the operating system into one that says where, and how to mend it."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room there" if full else "check that it may be read and written"
        message = f"{path}: {error.strerror}: {remedy}, or choose another folder."
        raise UserError(message) from error


def _sync_folder(folder):
    """Forces a new name to disk; where a system cannot, only a power cut may lose the name."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
