"""Checkpoints of states that no process can hold as a whole: folders that Orbax writes.

Every process writes its own parts, and reads those it needs; nothing is gathered. It is slower and
makes many files, so only where a config asks for it (`devices.orbax`), and on a file system that
all processes share. Orbax notices most damage, but not every flipped bit as the one file does.
"""

import contextlib
import importlib.util
import json
import logging
import sys

import numpy as np

from training.checkpoint.reading import damaged
from training.common.trees import named_leaves
from training.config import ORBAX
from utils import UserError


def installed():
    """Whether Orbax is there, without importing it."""
    return bool(importlib.util.find_spec("orbax") and importlib.util.find_spec("orbax.checkpoint"))


class Writer:
    """Writes in the background; all processes are to call it alike."""

    def __init__(self):
        orbax = _orbax()
        self._checkpointer = orbax.AsyncCheckpointer(
            orbax.PyTreeCheckpointHandler(),
            # else a folder that cannot be made is waited for, up to ten minutes
            async_options=orbax.options.AsyncOptions(create_directories_asynchronously=False),
        )

    def start(self, path, arrays, meta):
        """Copies this process's parts, and begins to write the folder, which appears when all have.

        Args:
            path: of the folder.
            arrays: from `arrays_of`; they may be donated right after.
            meta: text.
        """
        save = _orbax().args.PyTreeSave(arrays, custom_metadata={"meta": meta})
        with _raising(UserError, f"{path}: not saved: "):
            self._checkpointer.save(path.absolute(), args=save)

    def wait(self, path):
        """Returns when all processes have written."""
        with _raising(UserError, f"{path}: not saved: "):
            self._checkpointer.wait_until_finished()


def arrays_of(state):
    """Returns {name: array} of a state; one without elements, which Orbax refuses, is an error."""
    arrays = named_leaves(state)
    for name, array in arrays.items():
        if not array.size:
            raise UserError(f"devices.orbax: Orbax cannot save {name}, which has no elements")
    return arrays


def load(path, shapes_only=False):
    """Returns (arrays, meta) of a folder, the arrays NumPy's or jax.ShapeDtypeStructs.

    Raises:
        ValueError: the folder is damaged, or none of Orbax's.
    """
    import jax

    orbax, path = _orbax(), path.absolute()
    with _raising(ValueError), orbax.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata
        shapes = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype)
            for name, array in metadata.tree.items()
        }
        meta = json.loads(metadata.custom_metadata["meta"])
        if shapes_only:
            return shapes, meta
        whole = orbax.RestoreArgs(restore_type=np.ndarray)
        return checkpointer.restore(path, restore_args=dict.fromkeys(shapes, whole)), meta


def load_state(path, shapes, mesh):
    """Returns the state of a folder, of which every device has read its own parts, by `layout`.

    Args:
        path: the folder.
        shapes: tree of jax.ShapeDtypeStruct, all that it holds.
        mesh: of the devices, or None.
    """
    import jax

    from training.distributed.sharding import state_sharding

    orbax, alone = _orbax(), jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {
        name: orbax.ArrayRestoreArgs(
            sharding=state_sharding(mesh, leaf.shape) if mesh else alone, dtype=leaf.dtype
        )
        for name, leaf in named_leaves(shapes).items()
    }
    try:
        with _raising(ValueError), orbax.PyTreeCheckpointer() as checkpointer:
            arrays = checkpointer.restore(path.absolute(), restore_args=wanted)
    except ValueError as error:
        raise damaged(path, error) from error
    return jax.tree.unflatten(jax.tree.structure(shapes), [arrays[name] for name in wanted])


def _orbax():
    """The library, which takes seconds to import."""
    if not installed():
        raise UserError(f"this needs Orbax, which is not installed: pip install {ORBAX}")
    if "orbax.checkpoint" not in sys.modules:
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # it tells of every step
        _hush(sys.unraisablehook)
    import orbax.checkpoint

    return orbax.checkpoint


def _hush(show):
    """Keeps from the console what Orbax's threads print besides the error that they raise."""

    def hook(fault):
        if not any(
            text in str(fault.exc_value) for text in ("Event loop is closed", "TensorStore")
        ):
            show(fault)

    sys.unraisablehook = hook


@contextlib.contextmanager
def _raising(kind, prefix=""):
    """Turns whatever Orbax raises, which may be anything, into one kind of error."""
    import jax

    try:
        yield
    except (UserError, jax.errors.JaxRuntimeError):  # the latter: another process was lost
        raise
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0]
        raise kind(f"{prefix}{type(error).__name__}: {line}") from error
