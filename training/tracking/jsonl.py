"""Numbers as JSON lines in a file of the run folder."""

import contextlib
import json
import logging
import os
from pathlib import Path

from data_loader.locked_files import is_at
from training.common.files import atomic_write, disk_errors
from training.common.locks import Folder
from utils import UserError

LOG = logging.getLogger("main")


class LinesFile:
    """A file of JSON lines, cut off to `size` bytes.

    Lines that the disk refuses wait in memory for the next write. What another program does to the
    file meanwhile is reported; if it was deleted or replaced, it is written again.
    """

    def __init__(self, path, size):
        self._path, self._waiting = path, b""
        with disk_errors(path):
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115
            found = self._file.tell()
            if found > size:
                self._file.truncate(size)
                self._file.seek(size)
            self._end, self._folder = min(found, size), Folder(path.parent)
        if found < size:
            LOG.warning("%s: %d bytes of metrics are missing", path, size - found)

    def append(self, line):
        """Writes a dict as a line."""
        self._write(json.dumps(line, allow_nan=False).encode() + b"\n")

    def size(self):
        """Returns the bytes of all lines so far, those in memory included."""
        self._write(b"")
        return self._file.tell() + len(self._waiting)

    def close(self):
        """Closes the file."""
        self._file.close()
        self._folder.close()

    def _write(self, line):
        waited = bool(self._waiting)
        self._waiting += line
        try:
            with disk_errors(self._path):
                self._check()
                while self._waiting:
                    self._waiting = self._waiting[self._file.write(self._waiting) :]
                    self._end = self._file.tell()
        except UserError as failure:
            if not waited:
                LOG.warning("NOT WRITTEN: %s Training continues, and will try again.", failure)

    def _check(self):
        """Reports what another program did to the file; writes it again if it lost its name."""
        size = os.fstat(self._file.fileno()).st_size
        if size != self._end:
            LOG.warning(
                "%s: another program changed it: it has %d bytes, training wrote %d. Training "
                "continues, and appends to it", self._path, size, self._end,
            )  # fmt: skip
            self._end = size
        if is_at(self._file, self._path):
            return
        with contextlib.suppress(OSError):  # of a renamed folder, the saver reports
            if self._folder.is_in_place():
                self._file.seek(0)
                atomic_write(self._path, [self._file.read()])
                self._file.close()
                self._file = open(self._path, "a+b", buffering=0)  # noqa: SIM115
                LOG.warning("%s: another program removed or replaced it while this run writes it; "
                            "it is written again", self._path)  # fmt: skip


class JsonLines(LinesFile):
    """The tracker that writes metrics.jsonl: numbers only, no images and no clock times.

    Two runs of the same config on the same machine write the same file. Only `size` bytes of an
    existing one are kept: a killed run may have written more.
    """

    FILE = "metrics.jsonl"

    def __init__(self, folder, config, size=0):
        super().__init__(Path(folder) / self.FILE, size)

    def scalars(self, step, values):
        """Writes a line with the step and the values."""
        self.append({"step": step} | values)
