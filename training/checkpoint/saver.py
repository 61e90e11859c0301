"""Checkpoints: written in the background, whole or not at all; believed once every byte is checked.

A checkpoint is one file in the safetensors format (https://github.com/huggingface/safetensors), so
anyone can open it, and it holds data only: a pickle can run code. One file comes and goes in one
step; a folder of many files takes a small state 20 times as long, and more care. For states too
large to be gathered a config may ask for folders all the same (`devices.orbax`): they bear the same
names, and come and go as a whole as well; see training/checkpoint/orbax_folder.py.

Arrays are named by their path: "step", "params/stem/kernel", "optimizers/0/mu/stem/kernel".
"""

import contextlib
import functools
import json
import logging
from concurrent import futures
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from training.checkpoint.naming import BEST, numbered
from training.checkpoint.reading import snapshot
from training.checkpoint.single_file import encode, reason
from training.common import files
from training.common.files import Throttle, atomic_write, disk_errors, temporary_name
from training.common.timing import timed
from training.distributed import processes
from utils import UserError

PATIENCE = 5  # seconds that a checkpoint may take before training, which waits for it, says so
LOG = logging.getLogger("main")


class Saver:
    """Saves in the background, and keeps the latest few checkpoints and the best.

        with Saver(folder, keep=3) as saver:
            saver.save(state, meta, file_name(epoch), best=improved)

    A save that the disk does not take is told in the log at once, and training goes on. What is
    there already stays as it is. With the next save the best that was not saved is tried again
    (not by Orbax, which keeps no copy of it), and a numbered one is overtaken. One run at a time
    may save into a folder.

    Args:
        folder: made if it is not there, and cleared of what a killed run left half-written. None
            in a process that writes nothing, and only hands over its parts of the state.
        keep: how many numbered checkpoints stay, at least 1; None keeps all.
        orbax: whether Orbax is to write folders, every process its parts of the state.

    Attributes:
        failure: the error of the last save if the disk did not take it, else None.
    """

    def __init__(
        self, folder: str | Path | None, keep: int | None = None, orbax: bool = False
    ) -> None:
        if keep is not None and keep < 1:
            raise UserError(
                f"checkpoints to keep: expected at least 1, or null for all; got {keep}."
            )
        self.folder, self.keep = Path(folder) if folder else None, keep
        if self.folder:
            with disk_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                files.remove_temporaries(self.folder)
        self._orbax: Any = None
        if orbax:
            from training.checkpoint.orbax_folder import Writer

            self._orbax = Writer()
        self._worker = futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: futures.Future | None = None
        self.failure: UserError | None = None
        self._unsaved_best: list | None = None

    def __enter__(self) -> Self:
        """Returns itself; leaving the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes; an error that is under way stays the one that is raised."""
        if self._orbax and processes.is_distributed() and isinstance(error, Exception):
            return  # the others may be gone, and Orbax would wait for them
        try:
            self.close()
        except UserError as failure:
            if error is None:
                raise
            LOG.error("%s", failure)

    @timed("checkpoint")
    def save(self, state: Any, meta: dict, name: str | None, best: bool = False) -> None:
        """Waits for the last save, takes a snapshot and returns; the rest is done behind.

        Args:
            state: tree of arrays; they may be donated right after.
            meta: dict that JSON can hold.
            name: from `file_name`, or None where no numbered checkpoint is due.
            best: whether to write the best checkpoint, which stays when the numbered ones go.

        Raises:
            UserError: if the last one could not be saved, on any disk.
        """
        self._join()
        names = [name] * (name is not None) + [BEST] * best
        if not names:
            return
        begin = self._begin_folder if self._orbax else self._begin_file
        work = begin(names, state, json.dumps(meta))
        if work:
            self._pace = Throttle()
            self._pending = self._worker.submit(work, self._pace.rest)

    def wait(self) -> None:
        """Returns when the last save is safely on disk.

        Raises:
            UserError: if it is not.
        """
        self._join()
        if self.failure:
            raise self.failure

    def close(self) -> None:
        """Does what `wait` does, and ends the background thread."""
        try:
            self.wait()
        finally:
            self._worker.shutdown()

    def _join(self):
        """Waits for the thread."""
        if self._pending is None:
            return
        self._pace.hurry.set()
        if not futures.wait([self._pending], PATIENCE).done:
            LOG.warning("Training waits for the last checkpoint: %s is slow", self.folder)
        pending, self._pending = self._pending, None
        pending.result()

    def _begin_file(self, names, state, meta):
        """Returns what is to be done in the background, or None."""
        from training.distributed.sharding import replicate

        state = replicate(state)  # by all processes
        if self.folder is None:
            return None
        return functools.partial(self._write, self.folder, names, snapshot(state), meta)

    def _begin_folder(self, names, state, meta):
        """Returns what is to be done in the background, or None."""
        from training.checkpoint.orbax_folder import arrays_of

        arrays = arrays_of(state)
        path = str(temporary_name(self.folder.absolute() / names[0])) if self.folder else ""
        path = Path(processes.broadcast(path))
        with self._tried():
            self._orbax.start(path, arrays, meta)
            return functools.partial(self._name, self.folder, names, path)

    def _name(self, folder, names, path, rest):
        """Gives the folder that Orbax writes its names, in the background."""
        with self._tried():
            self._orbax.wait(path)
            if folder:
                with disk_errors(folder):
                    files.fsync_folder(path)
                    if len(names) > 1:
                        files.copy_folder(path, copy := temporary_name(folder / BEST))
                        files.rename_over(copy, folder / BEST)  # first, as in _write
                    files.rename_over(path, folder / names[0])
                self._delete_old(folder, names)

    @contextlib.contextmanager
    def _tried(self, best=None):
        """Keeps the error of a disk that does not take what is saved, and the best to save anew."""
        try:
            yield
        except UserError as failure:
            self.failure, self._unsaved_best = failure, best
            LOG.warning("NOT SAVED: %s Training goes on, and will try again.", failure)
        else:
            self.failure, self._unsaved_best = None, None

    def _write(self, folder, names, arrays, meta, rest):
        """Writes, in the background; only then deletes what is too old."""
        try:
            pieces = encode(arrays, meta, rest)
        except (MemoryError, ValueError) as error:
            raise UserError(f"{folder / names[0]}: not saved: {reason(error)}.") from error
        best = pieces if BEST in names else self._unsaved_best
        # The best first: a numbered one says what the best is, and may not outlive a kill alone.
        contents = ({BEST: best} if best else {}) | dict.fromkeys(names, pieces)
        with self._tried(best):
            for name, content in contents.items():
                atomic_write(folder / name, content, rest)
            self._delete_old(folder, names)

    def _delete_old(self, folder, names):
        old = [path for path in numbered(folder) if path.name not in names]
        stay = len(old) if self.keep is None else self.keep - (names != [BEST])
        with disk_errors(folder):
            for path in old[: max(0, len(old) - stay)]:
                files.remove(path)
