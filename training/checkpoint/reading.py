"""Reading a checkpoint of any format; its content is used only after it is checked."""

import contextlib
from pathlib import Path
from typing import Any

from training.checkpoint.naming import best, exists, numbered
from training.checkpoint.orbax_folder import OrbaxFolder
from training.checkpoint.single_file import DAMAGE, SingleFile, reason
from training.common.files import disk_errors
from utils import UserError


def format_of(path: Path) -> type[SingleFile] | type[OrbaxFolder]:
    """Returns the format of the checkpoint at a path."""
    return OrbaxFolder if path.is_dir() else SingleFile


def read(path: str | Path, for_devices: bool = False) -> tuple[dict[str, Any], dict]:
    """Reads a checkpoint and checks it: every byte of a file, of a folder what Orbax checks.

    Args:
        path: the checkpoint.
        for_devices: whether the arrays are only passed to `restore_state`. Then those of a format
            that reads them onto the devices by itself are shapes only.

    Returns:
        arrays: dict of name -> NumPy array, or jax.ShapeDtypeStruct.
        meta: the dict it was saved with.

    Raises:
        UserError: the checkpoint cannot be read, is damaged, or is none.
    """
    with _errors_of(path):
        return format_of(Path(path)).load(Path(path), for_devices)


def read_meta(path: str | Path) -> dict:
    """Reads the meta of a checkpoint without its arrays, which stay unchecked; see `read`."""
    with _errors_of(path):
        return format_of(Path(path)).load_meta(Path(path))


def damaged(path: str | Path, error: BaseException) -> UserError:
    """Returns the UserError for a damaged checkpoint; it names another one to use."""
    other = _newest_intact(Path(path))
    hint = other and (
        f" The newest {'other' if other.is_dir() else 'whole'} checkpoint beside it is {other}."
    )
    return UserError(f"{path} is damaged or not a checkpoint ({reason(error)}).{hint or ''}")


@contextlib.contextmanager
def _errors_of(path):
    """Turns the errors of reading a checkpoint into UserErrors."""
    if not exists(path):  # opening a named pipe would wait forever
        raise UserError(f"{path}: there is no such file.")
    try:
        with disk_errors(path):
            yield
    except DAMAGE as error:
        raise damaged(path, error) from error


def _newest_intact(path):
    """Returns the newest intact checkpoint beside a damaged one, or None."""
    for other in (*reversed(numbered(path.parent)), best(path.parent)):
        if other and other != path:
            with contextlib.suppress(OSError, UserError, *DAMAGE):
                format_of(other).load(other, for_devices=True)
                return other
