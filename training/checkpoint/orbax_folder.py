"""Checkpoints of states that no process can hold as a whole: folders that Orbax writes.

Every process writes its own parts of the state, and reads those that it needs; nothing is gathered.
This is slower and makes many files, so it is used only where a config asks for it
(`devices.orbax`), on a file system that all processes share. The folders have the same names as the
files of `single_file`, and appear and disappear atomically, too. Orbax detects most damage, but,
unlike the checksums of the single file, not every flipped bit.
"""

import contextlib
import functools
import importlib.util
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from training.checkpoint.naming import BEST
from training.common.files import (
    copy_folder,
    disk_errors,
    fsync_folder,
    rename_over,
    temporary_name,
)
from training.config import ORBAX
from training.distributed.processes import broadcast
from utils import UserError

# Modules that import JAX are imported in functions: a checkpoint's name is found without it.


class OrbaxFolder:
    """The format of Orbax's folders, with the methods of `SingleFile`."""

    collective = True  # every process writes, and waits for the others

    def __init__(self) -> None:
        orbax = _orbax()
        self._checkpointer = orbax.AsyncCheckpointer(
            orbax.PyTreeCheckpointHandler(),
            # if asynchronous, a folder that cannot be made is waited for, up to ten minutes
            async_options=orbax.options.AsyncOptions(create_directories_asynchronously=False),
        )

    def start(
        self, folder: Path | None, names: list[str], state: Any, meta: str
    ) -> Callable[[Callable[[], None]], None] | None:
        """Copies this process's parts and starts to write a folder under a temporary name."""
        arrays = _arrays_of(state)
        path = str(temporary_name(folder.absolute() / names[0])) if folder else ""
        path = Path(broadcast(path))
        save = _orbax().args.PyTreeSave(arrays, custom_metadata={"meta": meta})
        with _errors_as(UserError, f"{path}: not saved: "):
            self._checkpointer.save(path, args=save)
        return functools.partial(self._finish, folder, names, path)

    @staticmethod
    def load(path: Path, for_devices: bool = False) -> tuple[dict[str, Any], dict]:
        """Reads the arrays, or only their shapes if they are for devices."""
        import jax

        orbax, path = _orbax(), path.absolute()
        with _errors_as(ValueError), orbax.PyTreeCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(path).item_metadata
            shapes = {
                name: jax.ShapeDtypeStruct(array.shape, array.dtype)
                for name, array in metadata.tree.items()
            }
            meta = json.loads(metadata.custom_metadata["meta"])
            if for_devices:
                return shapes, meta
            whole = orbax.RestoreArgs(restore_type=np.ndarray)
            return checkpointer.restore(path, restore_args=dict.fromkeys(shapes, whole)), meta

    @staticmethod
    def load_meta(path: Path) -> dict:
        """Reads Orbax's metadata only."""
        return OrbaxFolder.load(path, for_devices=True)[1]

    @staticmethod
    def put_on_devices(path: Path, arrays: dict[str, Any], mesh: Any) -> dict[str, Any]:
        """Reads the arrays of these shapes: every device its own parts."""
        import jax

        from training.distributed.sharding import state_sharding

        orbax, single = _orbax(), jax.sharding.SingleDeviceSharding(jax.devices()[0])
        wanted = {
            name: orbax.ArrayRestoreArgs(
                sharding=state_sharding(mesh, array.shape) if mesh else single, dtype=array.dtype
            )
            for name, array in arrays.items()
        }
        with _errors_as(ValueError), orbax.PyTreeCheckpointer() as checkpointer:
            return checkpointer.restore(path.absolute(), restore_args=wanted)

    def _finish(self, folder, names, path, pause):
        """Waits until all processes have written; the first one then gives the folder its names."""
        with _errors_as(UserError, f"{path}: not saved: "):
            self._checkpointer.wait_until_finished()
        if not folder:
            return
        with disk_errors(folder):
            fsync_folder(path)
            if len(names) > 1:
                copy_folder(path, copy := temporary_name(folder / BEST))
                rename_over(copy, folder / BEST)  # first, as in single_file
            rename_over(path, folder / names[0])


def _arrays_of(state):
    """Returns {name: array} of a state; Orbax refuses arrays without elements."""
    from training.common.trees import named_leaves

    arrays = named_leaves(state)
    for name, array in arrays.items():
        if not array.size:
            raise ValueError(f"devices.orbax: Orbax cannot save {name}, which has no elements")
    return arrays


def _orbax():
    """Returns the library, which takes seconds to import."""
    if not (importlib.util.find_spec("orbax") and importlib.util.find_spec("orbax.checkpoint")):
        raise UserError(f"this needs Orbax, which is not installed: pip install {ORBAX}")
    if "orbax.checkpoint" not in sys.modules:
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs every step
        _silence_threads(sys.unraisablehook)
    import orbax.checkpoint

    return orbax.checkpoint


def _silence_threads(show):
    """Keeps from the console what Orbax's threads print besides the error that they raise."""

    def hook(fault):
        if not any(
            text in str(fault.exc_value) for text in ("Event loop is closed", "TensorStore")
        ):
            show(fault)

    sys.unraisablehook = hook


@contextlib.contextmanager
def _errors_as(kind, prefix=""):
    """Turns any error of Orbax, which may be of any type, into one of this type."""
    import jax

    try:
        yield
    except (UserError, jax.errors.JaxRuntimeError):  # the latter: another process was lost
        raise
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0]
        raise kind(f"{prefix}{type(error).__name__}: {line}") from error
