"""Saving in the background: the latest few checkpoints of a run, and the best."""

import contextlib
import json
import logging
import os
from concurrent import futures
from pathlib import Path
from typing import Any, Self

import numpy as np

from training.checkpoint.naming import BEST, exists, numbered
from training.checkpoint.orbax_folder import OrbaxFolder
from training.checkpoint.single_file import SingleFile, reason
from training.common.files import Throttle, disk_errors, remove, remove_temporaries
from training.common.locks import Folder
from training.common.timing import timed
from training.distributed import processes
from utils import UserError

PATIENCE = 5  # seconds that training waits for the last checkpoint before it logs a warning
LOG = logging.getLogger("main")


class Saver:
    """Saves in the background, and keeps the latest few checkpoints and the best.

        with Saver(folder, keep=3) as saver:
            saver.save(state, meta, file_name(epoch), best=improved)

    If the disk does not accept a checkpoint, the log says so at once, `failure` is the error and
    training continues; existing checkpoints are unchanged. The next save tries a best that was not
    saved again (not with Orbax, which keeps no copy of it); a numbered one is replaced by its
    successor. Only one run at a time may save into a folder.

    Args:
        folder: created if it does not exist, and cleared of what a killed run wrote in part. None
            in a process that writes nothing and only contributes its parts of the state.
        keep: how many numbered checkpoints are kept, at least 1; None keeps all.
        orbax: whether to save folders with Orbax, to which every process writes its own parts.
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
                remove_temporaries(self.folder)
        self._place = Folder(self.folder) if self.folder else None
        self._saved: set[str] = set()  # names of the checkpoints that are to be there
        self._format = OrbaxFolder() if orbax else SingleFile(self._check_folder)
        self.takes_arrays = not orbax  # besides those of the state
        self._worker = futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: futures.Future | None = None
        self.failure: UserError | None = None

    def __enter__(self) -> Self:
        """Returns itself; leaving the block closes it."""
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Closes; an error of the block is the one that is raised."""
        if self._format.collective and processes.is_distributed() and isinstance(error, Exception):
            return  # the other processes may be gone, and saving would wait for them
        try:
            self.close()
        except UserError as failure:
            if error is None:
                raise
            LOG.error("%s", failure)

    @timed("checkpoint")
    def save(
        self,
        state: Any,
        meta: dict,
        name: str | None,
        best: bool = False,
        arrays: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Waits for the last save, takes a snapshot and returns; a thread does the rest.

        Args:
            state: tree of arrays; they may be donated as soon as this returns.
            meta: dict that JSON can hold.
            name: from `file_name`, or None if no numbered checkpoint is due.
            best: whether to save it as the best checkpoint, too, which is kept longer.
            arrays: more of them by name, if the format takes them: `takes_arrays`.

        Raises:
            UserError: no disk could hold the last state, or this one.
        """
        self._wait_for_pending()
        names = ([name] if name is not None else []) + [BEST] * best
        if not names:
            return
        text = json.dumps(meta)
        with self._failures_logged(names):
            more = {"arrays": arrays} if arrays else {}
            finish = self._format.start(self.folder, names, state, text, **more)
            if finish:
                self._throttle = Throttle()
                self._pending = self._worker.submit(self._finish, finish, names)

    def wait(self) -> None:
        """Returns when the last save is on disk; raises the UserError if it could not be saved."""
        self._wait_for_pending()
        if self.failure:
            raise self.failure
        self._check_folder()

    def close(self) -> None:
        """Does what `wait` does, and ends the background thread."""
        try:
            self.wait()
        finally:
            self._worker.shutdown()
            if self._place:
                self._place.close()

    def _wait_for_pending(self):
        """Waits for the thread to finish the last save, and warns if that takes long."""
        if self._pending is None:
            return
        self._throttle.hurry.set()
        if not futures.wait([self._pending], PATIENCE).done:
            LOG.warning("Training waits for the last checkpoint: %s is slow", self.folder)
        pending, self._pending = self._pending, None
        pending.result()

    def _finish(self, finish, names):
        """Finishes a save in the thread; only then deletes the checkpoints that are too old."""
        with self._failures_logged(names):
            finish(self._throttle.pause)
            self._saved |= set(names)
            if self.folder:
                self._delete_old(self.folder, names)
                if self.failure:  # what could not be removed then, as the folder was away
                    remove_temporaries(self.folder)
            self.failure = None

    def is_in_place(self) -> bool:
        """Whether the run folder still has its name."""
        return self._place is not None and self._place.is_in_place()

    def _check_folder(self):
        """Raises a UserError if another folder has the run folder's name; reports lost files."""
        if not self.folder:
            return
        if not self.is_in_place():
            there = os.path.lexists(self.folder)
            raise UserError(
                f"{self.folder}: {'another folder' if there else 'No such file or directory'}: the "
                "one in which this run began was renamed or removed. Give it its name again."
            )
        for name in sorted(self._saved):
            if not exists(self.folder / name):
                self._saved.remove(name)
                LOG.warning("%s: another program removed it. Training continues without it",
                            self.folder / name)  # fmt: skip

    @contextlib.contextmanager
    def _failures_logged(self, names):
        """Logs that the disk did not accept a checkpoint; raises if no disk could hold it."""
        try:
            yield
        except UserError as failure:
            self.failure = failure
            LOG.warning("NOT SAVED: %s Training continues, and will try again.", failure)
        except (MemoryError, ValueError) as error:
            path = Path(self.folder or "", names[0])
            raise UserError(f"{path}: not saved: {reason(error)}.") from error

    def _delete_old(self, folder, names):
        old = [path for path in numbered(folder) if path.name not in names]
        kept = len(old) if self.keep is None else self.keep - (names != [BEST])
        with disk_errors(folder):
            for path in old[: max(0, len(old) - kept)]:
                self._saved.discard(path.name)
                remove(path)
