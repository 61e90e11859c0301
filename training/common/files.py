"""Files and folders that appear atomically, and errors of the disk as messages."""

import contextlib
import errno
import os
import re
import secrets
import shutil
import threading
import time
from pathlib import Path

from data_loader.locked_files import WINDOWS, is_at, try_lock
from utils import UserError

# The name of a file or folder that is not complete; the second ending is Orbax's.
UNFINISHED = re.compile(r".+\.[0-9a-f]{8}\.tmp(\.orbax-checkpoint-tmp)?")
PREVIOUS = ".previous"  # ends the name of a complete folder that is being replaced


class Throttle:
    """Limits a background thread to a share of the processors, until `hurry`, an Event, is set.

    After `LONGEST` it works at full speed: of a large state, the next save would wait for the rest.
    """

    SHARE = 0.025  # of all processors' time
    STINT = 0.002  # seconds of work between two pauses
    LONGEST = 5  # seconds

    def __init__(self):
        self.hurry, self._since = threading.Event(), None
        self._share = min(1, self.SHARE * (os.cpu_count() or 1))
        self._end = time.monotonic() + self.LONGEST

    def pause(self):
        """Sleeps in proportion to the time worked since the last pause, if one is due."""
        now = time.thread_time()
        if self._since is None:
            self._since = now
        elif now - self._since >= self.STINT:
            left = self._end - time.monotonic()
            self.hurry.wait(max(0, min(left, (now - self._since) * (1 / self._share - 1))))
            self._since = time.thread_time()


def chunks(buffer, size=2**20):
    """Yields a buffer of bytes in pieces of at most `size` bytes."""
    view = memoryview(buffer)
    for start in range(0, len(view), size):
        yield view[start : start + size]


@contextlib.contextmanager
def atomic_file(path, private=False):
    """Yields a binary file, which gets its name when the block ends without an error.

    Until then it has a temporary name, and a lock that says that its owner is alive. A private file
    is readable by its owner alone.

    Raises:
        UserError: the file cannot be written; an existing one is unchanged.
    """
    path, temporary = Path(path), None
    try:
        with disk_errors(path):
            temporary, file = _create_temporary(path, _open_private if private else None)
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if WINDOWS:  # there, no open file is renamed either
                    file.close()
                rename_over(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            if temporary:
                temporary.unlink()


def _create_temporary(path, opener):
    """Returns the path of a new file beside another, and the file, open and locked."""
    while True:
        temporary = temporary_name(path)
        file = open(temporary, "xb", opener=opener)  # noqa: SIM115
        if try_lock(file) and is_at(file, temporary):  # else `remove_temporaries` saw it unlocked
            return temporary, file
        file.close()


def atomic_write(path, buffers, pause=lambda: None, private=False):
    """Writes buffers of bytes to a file as `atomic_file` does; calls `pause` after every chunk."""
    with atomic_file(path, private) as file:
        for buffer in buffers:
            for chunk in chunks(buffer):
                file.write(chunk)
                pause()


def hard_link(source, path):
    """Gives a complete file a second name atomically; returns whether that is possible here.

    Neither name is affected when the other is removed, or given to another file.
    """
    temporary = temporary_name(path)
    try:
        os.link(source, temporary)
        rename_over(temporary, path)
    except (OSError, NotImplementedError):  # a file system without links
        return False
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return True


def atomic_write_text(path, text, private=False):
    """Writes a text in UTF-8, as `atomic_write` does."""
    content = text.encode(errors="backslashreplace")  # names of files may be bytes that are no text
    atomic_write(path, [content], private=private)


def _open_private(path, flags):
    return os.open(path, flags, 0o600)


def is_orbax_folder(path):
    """Whether this is a folder that Orbax wrote; no other folder is read or removed."""
    markers = ("_CHECKPOINT_METADATA", "_METADATA")  # either may be lost
    return any(os.path.isfile(os.path.join(path, marker)) for marker in markers)


def rename_over(temporary, path):
    """Gives a complete file or folder its name, and removes what had that name before.

    A folder cannot be replaced in one step. After a kill in between, the old one is at
    path + PREVIOUS.
    """
    old = path.with_name(path.name + PREVIOUS)
    if is_orbax_folder(path) or (os.path.isdir(temporary) and os.path.isfile(path)):
        os.replace(path, old)
    os.replace(temporary, path)
    _sync(path.parent)
    remove(old)


def remove(path):
    """Removes a file or a folder; a folder that a kill leaves in part is named as unfinished."""
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


def copy_folder(source, target):
    """Copies a folder, by hard links where the file system has them."""

    def link(file, copy):
        try:
            os.link(file, copy)
        except OSError:
            shutil.copy2(file, copy)

    shutil.copytree(source, target, copy_function=link)


def temporary_name(path):
    """Returns a path beside `path` to write to before the rename."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")


def remove_temporaries(folder):
    """Removes what a killed process wrote in part, and completes or undoes its last rename.

    To be called by the owner of the run folder's lock: folders are written by training alone. A
    file that is still locked belongs to a living process, such as a test.py, and is left.
    """
    for path in list(Path(folder).iterdir()):
        name = path.with_name(path.name.removesuffix(PREVIOUS))
        if UNFINISHED.fullmatch(path.name) and not path.is_dir():
            _remove_unless_locked(path)
        elif UNFINISHED.fullmatch(path.name) or (name != path and os.path.lexists(name)):
            remove(path)
        elif name != path:
            os.replace(path, name)


def _remove_unless_locked(path):
    with contextlib.suppress(OSError):  # its owner has just finished
        if WINDOWS:
            path.unlink()
            return
        with open(path, "r+b") as file:
            if try_lock(file):
                path.unlink()


@contextlib.contextmanager
def disk_errors(path):
    """Turns an error of the operating system into a UserError with the path and the remedy."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room there" if full else "check that it may be read and written"
        message = f"{path}: {error.strerror}: {remedy}, or choose another folder."
        raise UserError(message) from error


def _sync(path):
    """Forces a file, or a folder's names, to disk; some file systems cannot, which is no error."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
