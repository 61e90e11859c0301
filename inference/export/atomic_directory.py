"""A directory that appears under its name only once it is complete."""

import secrets
import shutil
from pathlib import Path

from training.common.files import disk_errors


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
        for stale in self.target.parent.glob(f".{self.target.name}.*.tmp"):
            shutil.rmtree(stale, ignore_errors=True)  # of an export that was killed
        with disk_errors(self.target):
            self.folder.mkdir(parents=True)
        self._disk_errors = disk_errors(self.target)
        self._disk_errors.__enter__()
        return self

    def __exit__(self, *raised):
        shutil.rmtree(self.folder, ignore_errors=True)
        return self._disk_errors.__exit__(*raised)

    def publish(self, good):
        """Renames the directory to its target and returns the path.

        Args:
            good: whether it may replace an earlier target; if not, the earlier one is kept, and
                this directory becomes `<name>.rejected`.
        """
        place = self.target
        if place.exists() and not good:
            place = place.with_name(f"{place.name}.rejected")
        old = _temporary(place)
        if place.exists():
            place.rename(old)
        self.folder.rename(place)
        shutil.rmtree(old, ignore_errors=True)
        return place


def _temporary(path):
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
