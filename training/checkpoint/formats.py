"""The formats of checkpoints, behind one protocol."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from training.checkpoint.orbax_folder import OrbaxFolder
from training.checkpoint.single_file import SingleFile


class CheckpointFormat(Protocol):
    """How checkpoints are written and read. An instance writes; reading needs none.

    Attributes:
        collective: whether every process writes its own parts, and so waits for the others.
    """

    collective: bool

    def start(
        self, folder: Path | None, names: list[str], state: Any, meta: str
    ) -> Callable[[Callable[[], None]], None] | None:
        """Takes a snapshot of a state and starts to save it; all processes call it.

        Args:
            folder: the run folder; None in a process that only contributes its parts of the state.
            names: the names to save it under, at least one, all with the same content.
            state: tree of arrays; they may be donated as soon as this returns.
            meta: text.

        Returns:
            what the background thread calls to finish, with a function that it calls in turn
            after each small piece of work (`Throttle.pause`); None if nothing is left to do. Every
            name appears atomically, the best checkpoint's first.

        Raises:
            UserError: the disk does not accept it; another attempt may succeed. The returned
                function, too.
            ValueError: the format cannot hold this state. The returned function, too.
        """
        ...

    @staticmethod
    def load(path: Path, for_devices: bool = False) -> tuple[dict[str, Any], dict]:
        """Reads and checks a checkpoint.

        Args:
            path: the checkpoint.
            for_devices: whether the arrays are only needed by `put_on_devices`.

        Returns:
            (arrays, meta). The arrays, by name, are NumPy's; a format that reads them in
            `put_on_devices` may return a jax.ShapeDtypeStruct for each if `for_devices` is set.

        Raises:
            One of `single_file.DAMAGE`, a ValueError for example: it is damaged or no checkpoint.
        """
        ...

    @staticmethod
    def load_meta(path: Path) -> dict:
        """Reads the meta without the arrays, which stay unchecked.

        Args:
            path: the checkpoint.

        Raises:
            One of `single_file.DAMAGE`.
        """
        ...

    @staticmethod
    def put_on_devices(path: Path, arrays: dict[str, Any], mesh: Any) -> dict[str, Any]:
        """Returns a state's arrays on the devices, each sharded by `state_sharding`.

        Args:
            path: the checkpoint.
            arrays: {name: array} as `load` with `for_devices` returned them.
            mesh: of the devices; None for a single one.

        Raises:
            ValueError: the checkpoint is damaged.
        """
        ...


def new_format(orbax: bool) -> CheckpointFormat:
    """Returns the format that a config asks for by `devices.orbax`, to write with."""
    return OrbaxFolder() if orbax else SingleFile()


def format_of(path: Path) -> type[CheckpointFormat]:
    """Returns the format of the checkpoint at a path, to read it with."""
    return OrbaxFolder if path.is_dir() else SingleFile
