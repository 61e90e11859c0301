"""Files that a data set reads again and again: refused once another program has changed them."""

import os
from collections.abc import Sequence
from pathlib import Path

from utils import UserError, printable

State = Sequence[int]  # size in bytes, time of the last change in nanoseconds


def state_of(path: str | Path) -> State:
    """Returns the state of a file, to be compared with a later one."""
    now = os.stat(path)
    return now.st_size, now.st_mtime_ns


def check_unchanged(path: str | Path, before: State) -> None:
    """Checks that a file is still the one that a data set began with.

    Raises:
        UserError: it was changed, removed or replaced.
    """
    name = printable(path)
    try:
        now = state_of(path)
    except OSError as error:
        raise UserError(
            f"{name}: cannot be read any more: {error.strerror}. It was there when this process "
            "began to read it: was it renamed or removed?"
        ) from None
    if tuple(now) != tuple(before):
        size = f"it has {now[0]} bytes, and had {before[0]}" if now[0] != before[0] else "same size"
        raise UserError(
            f"{name}: another program changed it while it is read ({size}): what was read before "
            "and what follows may not belong together. Leave the file as it is while a run lives"
        )
