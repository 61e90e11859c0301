"""Checkpoints: written in the background, whole or not at all; believed once every byte is checked.

A checkpoint is one file in the safetensors format (https://github.com/huggingface/safetensors), so
anyone can open it, and it holds data only: a pickle can run code. One file comes and goes in one
step; a folder of many files takes a small state 20 times as long, and more care. For states too
large to be gathered a config may ask for folders all the same (`devices.orbax`): they bear the same
names, and come and go as a whole as well; see training/orbax_file.py.

Arrays are named by their path: "step", "params/stem/kernel", "optimizers/0/mu/stem/kernel".
"""

import contextlib
import functools
import json
import logging
import math
import os
import re
from concurrent import futures
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from training import cluster, files
from training.checkpoint_file import DAMAGE, encode, load, reason, some
from training.files import PREVIOUS, Pace, explained, place, unfinished
from training.profiling import spent
from utils import UserError

BEST = "checkpoint-best.params"
NUMBERED = re.compile(r"checkpoint-epoch_([0-9]+)(?:-batch_([0-9]+))?\.params")
PATIENCE = 5  # seconds that a checkpoint may take before training, which waits for it, says so
LOG = logging.getLogger("main")


def write(path: str | Path, tree: Any, meta: dict) -> None:
    """Writes a tree of arrays to one file, which appears whole or not at all.

    Args:
        path: the file; one that is there is replaced.
        tree: nested dicts, tuples and NamedTuples of arrays, JAX's or NumPy's.
        meta: dict that JSON can hold.

    Raises:
        UserError: if the file cannot be written; an old one is then as it was.
        ValueError: if two arrays have one name, or the format has no place for a dtype.
    """
    place(path, encode(_snapshot(tree), json.dumps(meta)))


def read(path: str | Path, folders_whole: bool = True) -> tuple[dict[str, Any], dict]:
    """Reads a checkpoint, and checks every byte of it, or of a folder what Orbax checks.

    Args:
        path: the checkpoint.
        folders_whole: False: of a folder take the shapes only, for `orbax_file.load_state`.

    Returns:
        arrays: dict of name -> NumPy array, or jax.ShapeDtypeStruct.
        meta: the dict given to `write`.

    Raises:
        UserError: if the file cannot be read, is damaged, or is no checkpoint.
    """
    if not _is_there(path):  # to open a named pipe would wait for ever
        raise UserError(f"{path}: there is no such file.")
    try:
        with explained(path):
            return _load(Path(path), folders_whole)
    except DAMAGE as error:
        raise damaged(path, error) from error


def damaged(path: str | Path, error: BaseException) -> UserError:
    """Returns the UserError for a checkpoint that cannot be read, with the one to take instead."""
    other = _newest_whole(Path(path))
    hint = other and (
        f" The newest {'other' if other.is_dir() else 'whole'} checkpoint beside it is {other}."
    )
    return UserError(f"{path} is damaged or not a checkpoint ({reason(error)}).{hint or ''}")


def file_name(epoch: int, batch: int | None = None) -> str:
    """Returns the name for the end of `epoch`, or for when `batch` batches of it are done."""
    return f"checkpoint-epoch_{epoch}{'' if batch is None else f'-batch_{batch}'}.params"


def numbered(folder: str | Path) -> list[Path]:
    """Returns the folder's numbered checkpoints, oldest first; an epoch's end ends the epoch."""
    with explained(folder):
        names = os.listdir(folder) if os.path.isdir(folder) else []
    found = sorted((name for name in names if NUMBERED.fullmatch(name)), key=_position)
    return [path for name in found if _is_there(path := Path(folder, name))]


def latest(folder: str | Path) -> Path | None:
    """Returns the path of the last numbered checkpoint, or None."""
    return next(reversed(numbered(folder)), None)


def best(folder: str | Path) -> Path | None:
    """Returns the path of the best checkpoint, or None."""
    names = (BEST, BEST + PREVIOUS)  # the latter if a process was killed while it replaced it
    return next((path for name in names if _is_there(path := Path(folder, name))), None)


def find(path: str | Path, prefer_best: bool = False) -> Path:
    """Returns the checkpoint that `path` names: itself, or a run folder's latest or best.

    A folder whose only checkpoint is the best gives that as its latest.

    Raises:
        UserError: if there is none.
    """
    if _is_there(path):
        return Path(path)
    found = best(path) if prefer_best else latest(path) or best(path)
    if found is None:
        folder = path if os.path.isdir(path) else Path(path).parent
        there = [file.name for file in (best(folder), *reversed(numbered(folder))) if file]
        kind = "best checkpoint" if prefer_best else "checkpoint"
        raise UserError(f"{path}: there is no {kind} here; {folder} has {some(there)}.")
    return found


def never_saved(path: str | Path) -> bool:
    """Whether this is the folder of a run that was killed before its first checkpoint."""
    return Path(path, "config.json").is_file() and not (numbered(path) or best(path))


def set_aside_after(folder: str | Path, epoch: int, batch: int | None = None) -> Path | None:
    """Moves the numbered checkpoints that are further in training into a folder of their own.

    To be called when a run goes on from an older one: those are of a future that it may not have,
    so neither `latest` nor what is saved from now on should meet them.

    Args:
        folder: the run folder.
        epoch, batch: the place gone on from, as in `file_name`.

    Returns:
        the path of the new folder in the run folder, or None if there was nothing to move.
    """
    here = _position(file_name(epoch, batch))
    later = [path for path in numbered(folder) if _position(path.name) > here]
    if not later:
        return None
    aside = Path(folder, f"set-aside-{datetime.now():%Y-%m-%d_%H-%M-%S_%f}")
    with explained(folder):
        aside.mkdir()
        for path in reversed(later):  # killed on the way, the latest left is the one before
            os.replace(path, aside / path.name)
    return aside


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
            with explained(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                files.clear_unfinished(self.folder)
        self._orbax: Any = None
        if orbax:
            from training.orbax_file import Writer

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
        if self._orbax and cluster.joined() and isinstance(error, Exception):
            return  # the others may be gone, and Orbax would wait for them
        try:
            self.close()
        except UserError as failure:
            if error is None:
                raise
            LOG.error("%s", failure)

    @spent("checkpoint")
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
            self._pace = Pace()
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
        from training.devices import gathered

        state = gathered(state)  # by all processes
        if self.folder is None:
            return None
        return functools.partial(self._write, self.folder, names, _snapshot(state), meta)

    def _begin_folder(self, names, state, meta):
        """Returns what is to be done in the background, or None."""
        from training.orbax_file import arrays_of

        arrays = arrays_of(state)
        path = str(unfinished(self.folder.absolute() / names[0])) if self.folder else ""
        path = Path(cluster.from_first(path))
        with self._tried():
            self._orbax.start(path, arrays, meta)
            return functools.partial(self._name, self.folder, names, path)

    def _name(self, folder, names, path, rest):
        """Gives the folder that Orbax writes its names, in the background."""
        with self._tried():
            self._orbax.wait(path)
            if folder:
                with explained(folder):
                    files.force(path)
                    if len(names) > 1:
                        files.copy_folder(path, copy := unfinished(folder / BEST))
                        files.take_name(copy, folder / BEST)  # first, as in _write
                    files.take_name(path, folder / names[0])
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
                place(folder / name, content, rest)
            self._delete_old(folder, names)

    def _delete_old(self, folder, names):
        old = [path for path in numbered(folder) if path.name not in names]
        stay = len(old) if self.keep is None else self.keep - (names != [BEST])
        with explained(folder):
            for path in old[: max(0, len(old) - stay)]:
                files.remove(path)


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves by name."""
    import jax

    named = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in named or name == "__metadata__":
            raise ValueError(f"{name}: the name is taken, rename that array of the state")
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(f"{name} is a typed key, keep jax.random.key_data of it in the state")
        named[name] = leaf
    return named


def _snapshot(tree):
    """The leaves by name, as NumPy arrays that stay as they are when the state is donated.

    On a CPU they are views and cost nothing: JAX donates no buffer that a view looks into.
    """
    import jax

    named = named_leaves(tree)
    for leaf in named.values():
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    return {
        name: np.array(leaf, order="C", copy=None if isinstance(leaf, jax.Array) else True)
        for name, leaf in named.items()
    }


def _position(name):
    """How far in training a numbered checkpoint is: (epoch, batches of it)."""
    ((epoch, batch),) = NUMBERED.findall(name)
    return int(epoch), int(batch) if batch else math.inf


def _is_there(path):
    """Whether this is a file, or a folder that Orbax wrote."""
    return os.path.isfile(path) or files.is_orbax(path)


def _load(path, folders_whole=True):
    if not path.is_dir():
        return load(path)
    from training import orbax_file

    return orbax_file.load(path, shapes_only=not folders_whole)


def _newest_whole(path):
    """The newest whole checkpoint beside a damaged one, or None; of folders the shapes are read."""
    for other in (*reversed(numbered(path.parent)), best(path.parent)):
        if other not in (None, path):
            with contextlib.suppress(OSError, UserError, *DAMAGE):
                _load(other, folders_whole=False)
                return other
