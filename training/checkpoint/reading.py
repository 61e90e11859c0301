"""Writing and reading a checkpoint; what is read is believed once every byte is checked."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from training.checkpoint.naming import best, is_there, numbered
from training.checkpoint.single_file import DAMAGE, encode, load, reason
from training.common.files import atomic_write, disk_errors
from training.common.trees import named_leaves
from utils import UserError


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
    atomic_write(path, encode(snapshot(tree), json.dumps(meta)))


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
    if not is_there(path):  # to open a named pipe would wait for ever
        raise UserError(f"{path}: there is no such file.")
    try:
        with disk_errors(path):
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


def snapshot(tree):
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


def _load(path, folders_whole=True):
    if not path.is_dir():
        return load(path)
    from training.checkpoint import orbax_folder as orbax_file

    return orbax_file.load(path, shapes_only=not folders_whole)


def _newest_whole(path):
    """The newest whole checkpoint beside a damaged one, or None; of folders the shapes are read."""
    for other in (*reversed(numbered(path.parent)), best(path.parent)):
        if other not in (None, path):
            with contextlib.suppress(OSError, UserError, *DAMAGE):
                _load(other, folders_whole=False)
                return other
