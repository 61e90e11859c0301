"""Examples that lie on the device: a batch is but their indices (`data_loader.device_resident`).

The order is the loader's own, and so is every bit: only the gathering moves, from the host into the
update. On a CPU there is nothing to gain, as host and device share their memory.
"""

import copy
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from utils import UserError

SHARE = 0.5  # of the device's free memory that "auto" gives to the data


class Rows(NamedTuple):
    """Some examples of a table on the device; stands in a batch where else an array does."""

    table: Any  # (examples, ...)
    indices: Any  # (batch,) or (batches, batch) which of them


def fetch(tree):
    """Returns the tree with its Rows taken from their tables; what is none stays as it is."""

    def take(leaf):
        if not isinstance(leaf, Rows):
            return leaf
        return leaf.table.at[leaf.indices].get(mode="promise_in_bounds")

    return map_rows(take, tree)


def map_rows(function, *trees):
    """Returns `jax.tree.map(function, *trees)`, Rows being leaves."""
    return jax.tree.map(function, *trees, is_leaf=lambda leaf: isinstance(leaf, Rows))


def reside(loaders, wanted, where):
    """Returns the loaders, those that are to be resident with their data on the device.

    Args:
        loaders: {split: loader}.
        wanted: True, False, or "auto": on an accelerator, what is in memory anyway and fits.
        where: the key's place in the config.

    Raises:
        UserError: the data are wanted on the device and do not fit.
    """
    room = _free_memory() if wanted else 0
    if not wanted or (wanted == "auto" and (jax.default_backend() == "cpu" or room is None)):
        return loaders
    needed = {
        id(one.dataset): _size(one) for one in loaders.values() if wanted is True or _in_memory(one)
    }
    if room is not None and sum(needed.values()) > (room if wanted is True else SHARE * room):
        if wanted == "auto":
            return loaders
        raise UserError(
            f"{where}: true, but the data take {sum(needed.values()):,} bytes and the device has "
            f'{room:,} left; expected false, or "auto", which keeps to what fits'
        )
    tables = {}  # a data set that is split in two is there once
    return {
        split: _resident(one, tables) if id(one.dataset) in needed else one
        for split, one in loaders.items()
    }


def _resident(loader, tables):
    """A loader like it, whose batches hold Rows in place of arrays."""
    key = id(loader.dataset)
    if key not in tables:
        whole = dict(loader.read(np.arange(len(loader.dataset))))
        weight = whole.pop("weight", None)  # a loader's own stays where it weighs the padding
        tables[key] = jax.device_put(whole), weight
    table, weight = tables[key]

    def read(indices):
        rows = jax.tree.map(lambda leaf: Rows(leaf, indices.astype(np.int32)), table)
        return rows if weight is None else rows | {"weight": np.asarray(weight)[indices]}

    resident = copy.copy(loader)
    resident.read, resident.prefetch = read, 0
    return resident


def _in_memory(loader):
    """Whether reading is but copying: decoding or drawing at random may differ every time."""
    return hasattr(loader.dataset, "__getitems__") and getattr(loader, "_whole_batches", False)


def _size(loader):
    """Bytes of all examples, were each like the first."""
    first = loader.read(np.arange(1))
    return len(loader.dataset) * sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(first))


def _free_memory():
    """Bytes left on the device, or None where it does not say."""
    memory = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" not in memory:
        return None
    return math.floor(memory["bytes_limit"] - memory.get("bytes_in_use", 0))
