"""An export's folder, there whole or not at all."""

import secrets
import shutil
from pathlib import Path

from training.common.files import disk_errors


class AtomicDirectory:
    """A folder beside the target, which takes its place once everything in it is done.

        with Staging(Path("inference/jax_mnist")) as staging:
            (staging.folder / "file").write_text("...")
            staging.publish(good=True)

    What fails within leaves nothing behind, and an earlier target as it was.

    Raises:
        UserError: the operating system refuses: a full disk, missing permissions.
    """

    def __init__(self, target):
        self.target = Path(target)
        self.folder = self.target.with_name(f".{self.target.name}.{secrets.token_hex(4)}.tmp")

    def __enter__(self):
        for stale in self.target.parent.glob(f".{self.target.name}.*.tmp"):
            shutil.rmtree(stale, ignore_errors=True)  # of an export that was killed
        self._explained = disk_errors(self.target)
        self._explained.__enter__()
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            self._explained.__exit__(type(error), error, error.__traceback__)
        return self

    def __exit__(self, *raised):
        shutil.rmtree(self.folder, ignore_errors=True)
        return self._explained.__exit__(*raised)

    def publish(self, good):
        """Moves the folder to its place and returns it.

        Args:
            good: whether it may replace an earlier one; if not, that stays, and the folder is
                called `<name>.rejected`.
        """
        place = self.target
        if place.exists() and not good:
            place = place.with_name(f"{place.name}.rejected")
        old = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
        if place.exists():
            place.rename(old)
        self.folder.rename(place)
        shutil.rmtree(old, ignore_errors=True)
        return place
