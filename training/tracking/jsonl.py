"""Numbers as JSON lines in a file of the run folder."""

import json
import logging
from pathlib import Path

from training.common.files import disk_errors
from utils import UserError

LOG = logging.getLogger("main")


class LinesFile:
    """A file of JSON lines, cut off to `size` bytes.

    Lines that the disk refuses wait in memory for the next write.
    """

    def __init__(self, path, size):
        self._path, self._waiting = path, b""
        with disk_errors(path):
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115
            found = self._file.tell()
            if found > size:
                self._file.truncate(size)
                self._file.seek(size)
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

    def _write(self, line):
        waited = bool(self._waiting)
        self._waiting += line
        try:
            with disk_errors(self._path):
                while self._waiting:
                    self._waiting = self._waiting[self._file.write(self._waiting) :]
        except UserError as failure:
            if not waited:
                LOG.warning("NOT WRITTEN: %s Training continues, and will try again.", failure)


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
