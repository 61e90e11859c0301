"""Checkpoints: written in the background, whole or not at all; believed once every byte is checked.

A checkpoint is one file in the safetensors format (https://github.com/huggingface/safetensors), so
anyone can open it, and it holds data only: a pickle can run code. One file comes and goes in one
step; a folder of many files (Orbax) can be killed half-deleted under its final name, and takes a
small state 20 times as long.

Arrays are named by their path: "step", "params/stem/kernel", "optimizers/0/mu/stem/kernel".
"""

import contextlib
import json
import logging
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from training.checkpoint_file import (
    DAMAGE,
    TEMPORARY,
    encode,
    explained,
    load,
    place,
    reason,
    some,
)
from training.profiling import spent
from utils import UserError

BEST = "checkpoint-best.params"
NUMBERED = re.compile(r"checkpoint-epoch_([0-9]+)(?:-batch_([0-9]+))?\.params")


def write(path, tree, meta):
    """Writes a tree of arrays to one file, which appears whole or not at all.

    Args:
        path: the file; one that is there is replaced.
        tree: nested dicts, tuples and NamedTuples of arrays, JAX's or NumPy's.
        meta: dict that JSON can hold.

    Raises:
        UserError: if the file cannot be written; an old one is then as it was.
        ValueError: if two arrays have one name, or the format has no place for a dtype.
    """
    place(Path(path), encode(_snapshot(tree), json.dumps(meta)))


def read(path):
    """Reads a checkpoint, and checks every byte of it.

    Returns:
        arrays: dict of name -> NumPy array.
        meta: the dict given to `write`.

    Raises:
        UserError: if the file cannot be read, is damaged, or is no checkpoint.
    """
    if not os.path.isfile(path):  # to open a named pipe would wait for ever
        raise UserError(f"{path}: there is no such file.")
    try:
        with explained(path):
            return load(path)
    except DAMAGE as error:
        whole = _newest_whole(Path(path))
        hint = f" The newest whole checkpoint beside it is {whole}." if whole else ""
        message = f"{path} is damaged or not a checkpoint ({reason(error)})."
        raise UserError(message + hint) from error


def file_name(epoch, batch=None):
    """Returns the name for the end of `epoch`, or for when `batch` batches of it are done."""
    return f"checkpoint-epoch_{epoch}{'' if batch is None else f'-batch_{batch}'}.params"


def numbered(folder):
    """Returns the folder's numbered checkpoints, oldest first; an epoch's end ends the epoch."""
    with explained(folder):
        names = os.listdir(folder) if os.path.isdir(folder) else []
    found = [match for match in map(NUMBERED.fullmatch, names) if match]
    found.sort(key=lambda match: (int(match[1]), int(match[2]) if match[2] else math.inf))
    return [path for match in found if os.path.isfile(path := Path(folder, match[0]))]


def latest(folder):
    """Returns the path of the last numbered checkpoint, or None."""
    return next(reversed(numbered(folder)), None)


def best(folder):
    """Returns the path of the best checkpoint, or None."""
    path = Path(folder, BEST)
    return path if os.path.isfile(path) else None


def find(path, prefer_best=False):
    """Returns the checkpoint that `path` names: the file, or a run folder's latest or best.

    A folder whose only checkpoint is the best gives that as its latest.

    Raises:
        UserError: if there is none.
    """
    if os.path.isfile(path):
        return Path(path)
    found = best(path) if prefer_best else latest(path) or best(path)
    if found is None:
        folder = path if os.path.isdir(path) else Path(path).parent
        there = [file.name for file in (best(folder), *reversed(numbered(folder))) if file]
        kind = "best checkpoint" if prefer_best else "checkpoint"
        raise UserError(f"{path}: there is no {kind} here; {folder} has {some(there)}.")
    return found


class Saver:
    """Saves in the background, and keeps the latest few checkpoints and the best.

        with Saver(folder, keep=3) as saver:
            saver.save(state, meta, file_name(epoch), best=improved)

    The error of a save that failed is in `saver.failure`, and is raised once, by whichever comes
    next of `save`, `wait` and `close`. One process at a time may save into a folder.

    Args:
        folder: made if it is not there, and cleared of what a killed run left half-written.
        keep: how many numbered checkpoints stay, at least 1; None keeps all.
    """

    def __init__(self, folder, keep=None):
        if keep is not None and keep < 1:
            raise UserError(
                f"checkpoints to keep: expected at least 1, or null for all; got {keep}."
            )
        self.folder, self.keep = Path(folder), keep
        with explained(folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for stale in self.folder.glob(f"checkpoint-*{TEMPORARY}"):
                stale.unlink(missing_ok=True)
        self._worker, self._pending = ThreadPoolExecutor(1, "checkpoint"), None

    def __enter__(self):
        """Returns itself; leaving the block closes it."""
        return self

    def __exit__(self, kind, error, traceback):
        """Closes; an error that is under way stays the one that is raised."""
        try:
            self.close()
        except UserError as failure:
            if error is None:
                raise
            logging.getLogger(__name__).error("%s", failure)

    @property
    def failure(self):
        """The error of the last save, if that has failed and nothing has raised it yet."""
        ended = self._pending is not None and self._pending.done()
        return self._pending.exception() if ended else None

    @spent("checkpoint")
    def save(self, state, meta, name, best=False):
        """Waits for the last save, takes a snapshot and returns; the file is written behind.

        Args:
            state: tree of arrays; they may be donated right after.
            meta: dict that JSON can hold.
            name: from `file_name`, or None where no numbered checkpoint is due.
            best: whether to write the best checkpoint, which is a file of its own.

        Raises:
            UserError: if the last save failed; this one is then not begun.
        """
        self.wait()
        names = [name] * (name is not None) + [BEST] * best
        if names:
            work = names, _snapshot(state), json.dumps(meta)
            self._pending = self._worker.submit(self._write, *work)

    def wait(self):
        """Returns when the last save is safely on disk; raises its error if it failed."""
        if self._pending is not None:
            failure = self._pending.exception()
            self._pending = None
            if failure:
                raise failure

    def close(self):
        """Does what `wait` does, and ends the background thread."""
        try:
            self.wait()
        finally:
            self._worker.shutdown()

    def _write(self, names, arrays, meta):
        try:
            pieces = encode(arrays, meta)
            for name in names:
                place(self.folder / name, pieces)
            old = [path for path in numbered(self.folder) if path.name not in names]
            stay = len(old) if self.keep is None else self.keep - (names != [BEST])
            with explained(self.folder):
                for path in old[: max(0, len(old) - stay)]:
                    path.unlink(missing_ok=True)
        except (MemoryError, ValueError) as error:
            raise UserError(f"{self.folder / names[0]}: not saved: {reason(error)}.") from error


def named_leaves(tree):
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


def _newest_whole(path):
    """The newest whole checkpoint beside a damaged one, or None."""
    for other in (*reversed(numbered(path.parent)), best(path.parent)):
        if other is not None:
            with contextlib.suppress(OSError, *DAMAGE):
                load(other)
                return other
