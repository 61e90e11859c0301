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

# The name of what is not whole yet, or not any more; the second ending is Orbax's.
UNFINISHED = re.compile(r".+\.[0-9a-f]{8}\.tmp(\.orbax-checkpoint-tmp)?")
PREVIOUS = ".previous"  # ends the name of what is whole, and about to be replaced


class Throttle:
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


def atomic_write(path, pieces, rest=lambda: None):
    """Writes the buffers under a temporary name, and gives the file its own once it is on disk.

    Args:
        path: the file; one that is there is replaced.
        pieces: its content, buffers of bytes.
        rest: called again and again during the work.
    """
    path = Path(path)
    temporary = temporary_name(path)
    try:
        with disk_errors(path):
            with open(temporary, "xb") as file:
                for piece in pieces:
                    for chunk in chunks(piece):
                        file.write(chunk)
                        rest()
                file.flush()
                os.fsync(file.fileno())
            rename_over(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def atomic_write_text(path, text):
    """Writes a text in UTF-8 as `place` does."""
    atomic_write(path, [text.encode()])


def is_orbax_folder(path):
    """Whether this is a folder that Orbax wrote; any other is nobody's to read or to remove."""
    marks = ("_CHECKPOINT_METADATA", "_METADATA")  # either may be lost
    return any(os.path.isfile(os.path.join(path, mark)) for mark in marks)


def rename_over(temporary, path):
    """Gives a file or a folder that is whole its name; what had the name before is removed.

    A folder cannot be replaced in one step. Killed in between, the old one is at path + PREVIOUS.
    """
    old = path.with_name(path.name + PREVIOUS)
    if is_orbax_folder(path) or (os.path.isdir(temporary) and os.path.isfile(path)):
        os.replace(path, old)
    os.replace(temporary, path)
    _sync(path.parent)
    remove(old)


def remove(path):
    """Removes a file, or a folder; killed on the way, what is left of it is named as unfinished."""
    if os.path.isdir(path):
        doomed = temporary_name(path)
        os.replace(path, doomed)
        shutil.rmtree(doomed)
    else:
        path.unlink(missing_ok=True)


def fsync_folder(folder):
    """Forces all files of a folder to disk."""
    for path in Path(folder).rglob("*"):
        _sync(path)


def copy_folder(folder, to):
    """Makes a folder of the same files: by links where the file system has them."""

    def link(source, destination):
        try:
            os.link(source, destination)
        except OSError:
            shutil.copy2(source, destination)

    shutil.copytree(folder, to, copy_function=link)


def temporary_name(path):
    """Returns a name beside the path for what is to become it."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")


def remove_temporaries(folder):
    """Removes what a killed process left half-written in a folder, or half-replaced."""
    for path in list(Path(folder).iterdir()):
        if UNFINISHED.fullmatch(path.name):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        elif path.name.endswith(PREVIOUS):
            name = path.with_name(path.name.removesuffix(PREVIOUS))
            if os.path.lexists(name):
                remove(path)
            else:
                os.replace(path, name)


@contextlib.contextmanager
def disk_errors(path):
    """Turns an error of the operating system into one that says where, and how to mend it."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room there" if full else "check that it may be read and written"
        message = f"{path}: {error.strerror}: {remedy}, or choose another folder."
        raise UserError(message) from error


def _sync(path):
    """Forces a file or a folder's names to disk; where a system cannot, a power cut may lose it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
