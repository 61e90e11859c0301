"""Checkpoints of states that no process can hold as a whole: folders that Orbax writes.

Every process writes its own parts, and reads those it needs; nothing is gathered. Slower and of
many files, so only where a config asks for it (`devices.orbax`). The folder has to be on a file
system that all processes share.

Orbax notices most damage, but not every flipped bit as the one file does.
"""

import contextlib
import importlib.util
import json
import logging
import sys

import numpy as np

from training.checkpoint import damaged, named_leaves
from utils import UserError

PACKAGE = "orbax-checkpoint==0.12.8"


def installed():
    """Whether Orbax is there, without importing it."""
    return bool(importlib.util.find_spec("orbax") and importlib.util.find_spec("orbax.checkpoint"))


def arrays_of(state):
    """Returns {name: array} of a state.

    Raises:
        UserError: one is of a kind that Orbax does not take.
    """
    arrays = named_leaves(state)
    for name, array in arrays.items():
        if not array.size:
            raise UserError(f"devices.orbax: Orbax cannot save {name}, which has no elements")
    return arrays


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
        """Copies this process's parts of the arrays, and begins to write them.

        Args:
            path: of the folder, which is there once all processes have written.
            arrays: from `arrays_of`; they may be donated right after.
            meta: text.

        Raises:
            UserError: it could not.
        """
        save = _orbax().args.PyTreeSave(arrays, custom_metadata={"meta": meta})
        with _failing(path, UserError):
            self._checkpointer.save(path.absolute(), args=save)

    def wait(self, path):
        """Returns when all processes have written.

        Raises:
            UserError: one could not.
        """
        with _failing(path, UserError):
            self._checkpointer.wait_until_finished()


def load(path, shapes_only=False):
    """Returns (arrays, meta) of a folder, the arrays NumPy's or jax.ShapeDtypeStructs.

    Raises:
        UserError: Orbax is not installed.
        ValueError: the folder is damaged, or none of Orbax's.
    """
    import jax

    orbax, path = _orbax(), path.absolute()
    with _failing(path, ValueError), orbax.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path).item_metadata
        meta = json.loads(metadata.custom_metadata["meta"])
        arrays = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype)
            for name, array in metadata.tree.items()
        }
        if not shapes_only:
            whole = orbax.RestoreArgs(restore_type=np.ndarray)
            arrays = checkpointer.restore(path, restore_args=dict.fromkeys(arrays, whole))
    return arrays, meta


def load_state(path, shapes, mesh):
    """Returns a state whose parts each device has read for itself, laid out by `layout`.

    Args:
        path: the folder.
        shapes: tree of jax.ShapeDtypeStruct, all that the folder holds.
        mesh: of the devices, or None.

    Raises:
        UserError: the folder is damaged.
    """
    import jax

    from training.devices import layout

    orbax, path = _orbax(), path.absolute()
    alone = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {
        name: orbax.ArrayRestoreArgs(
            sharding=layout(mesh, leaf.shape) if mesh else alone,
            global_shape=leaf.shape,
            dtype=leaf.dtype,
        )
        for name, leaf in named_leaves(shapes).items()
    }
    try:
        with _failing(path, ValueError), orbax.PyTreeCheckpointer() as checkpointer:
            arrays = checkpointer.restore(path, restore_args=wanted)
    except ValueError as error:
        raise damaged(path, error) from error
    return jax.tree.unflatten(jax.tree.structure(shapes), [arrays[name] for name in wanted])


def _orbax():
    """The library, which takes seconds to import."""
    if not installed():
        raise UserError(f"this needs Orbax, which is not installed: pip install {PACKAGE}")
    if "orbax.checkpoint" not in sys.modules:
        _hush()
    import orbax.checkpoint

    return orbax.checkpoint


def _hush():
    """Keeps from the console what Orbax tells of every step, and its threads of every failure."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    show = sys.unraisablehook

    def hook(fault):
        if not any(
            text in str(fault.exc_value) for text in ("Event loop is closed", "TensorStore")
        ):
            show(fault)

    sys.unraisablehook = hook


@contextlib.contextmanager
def _failing(path, kind):
    """Turns whatever Orbax raises, which may be anything, into one kind of error."""
    import jax

    try:
        yield
    except (UserError, jax.errors.JaxRuntimeError):  # the latter: another process was lost
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0]}"
        raise kind(f"{path}: not saved: {reason}" if kind is UserError else reason) from error
