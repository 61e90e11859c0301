"""A directory that appears under its name only once it is complete; one process makes it."""

import contextlib
import re
import secrets
import shutil
from pathlib import Path

from data_loader.locked_files import open_locked
from training.common.files import disk_errors
from utils import UserError


@contextlib.contextmanager
def exclusive(target):
    """Keeps other processes from making this directory; the lock of a dead process is free.

    Raises:
        UserError: another process is making it.
    """
    path = target.with_name(f".{target.name}.lock")
    with disk_errors(target):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_locked(path)
    if file is None:
        raise UserError(
            f"{path.parent}: another export of this name is being made ({path.name}); wait for it, "
            "or choose another --name"
        )
    with file:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()  # while nobody else has its lock


class AtomicDirectory:
    """A temporary directory beside the target, which replaces the target when it is published.

        with AtomicDirectory(Path("inference/jax_mnist")) as directory:
            (directory.folder / "file").write_text("...")
            directory.publish(good=True)

    An error within the block removes the temporary directory and leaves an earlier target as it is.

    Raises:
        UserError: the operating system refuses: a full disk, missing permissions.
    """

    def __init__(self, target):
        self.target = Path(target)
        self.folder = _temporary(self.target)

    def __enter__(self):
        with disk_errors(self.target):
            self.folder.mkdir(parents=True)
            self._tidy_up()
        self._disk_errors = disk_errors(self.target)
        self._disk_errors.__enter__()
        return self

    def __exit__(self, *raised):
        shutil.rmtree(self.folder, ignore_errors=True)
        return self._disk_errors.__exit__(*raised)

    def _tidy_up(self):
        """Removes what an export of this name left that was killed, or restores what it moved."""
        previous, name = _previous(self.target), re.escape(self.target.name)
        if previous.exists() and not self.target.exists():
            previous.rename(self.target)
        for path in self.target.parent.iterdir():
            stale = re.fullmatch(rf"\.{name}\.([0-9a-f]{{8}}\.tmp|previous)", path.name)
            if stale and path != self.folder:
                shutil.rmtree(path, ignore_errors=True)

    def publish(self, good):
        """Renames the directory to its target and returns the path.

        Args:
            good: whether it may replace an earlier target; if not, the earlier one is kept, and
                this directory becomes `<name>.rejected`.
        """
        place = self.target
        if place.exists() and not good:
            place = place.with_name(f"{place.name}.rejected")
        old = _previous(place)
        if place.exists():
            place.rename(old)
        self.folder.rename(place)
        shutil.rmtree(old, ignore_errors=True)
        return place


def _temporary(path):
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _previous(path):
    return path.with_name(f".{path.name}.previous")
