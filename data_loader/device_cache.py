"""Examples that lie on the device: a batch is but their indices (`data_loader.cache_on_device`).

The order is the loader's own, and so is every bit: only the gathering moves, from the host into the
update. On a CPU there is nothing to gain, as host and device share their memory.
"""

import copy
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from utils import UserError

SHARE = 0.5  # of the device's free memory that "auto" gives to the data


class TableView(NamedTuple):
    """Some examples of a table on the device; stands in a batch where else an array does."""

    table: Any  # (examples, ...)
    indices: Any  # (batch,) or (batches, batch) which of them


def gather(tree):
    """Returns the tree with its Rows taken from their tables; what is none stays as it is."""

    def take(leaf):
        if not isinstance(leaf, TableView):
            return leaf
        return leaf.table.at[leaf.indices].get(mode="promise_in_bounds")

    return map_views(take, tree)


def map_views(function, *trees):
    """Returns `jax.tree.map(function, *trees)`, Rows being leaves."""
    return jax.tree.map(function, *trees, is_leaf=lambda leaf: isinstance(leaf, TableView))


def cache_on_device(loaders, wanted, mesh, where):
    """Returns the loaders, those that are to be resident with their data on the device.

    Args:
        loaders: {split: loader}.
        wanted: True, False, or "auto": on an accelerator, what is in memory anyway and fits.
        mesh: of the devices, each of which gets all of it; None for a single one.
        where: the key's place in the config.

    Raises:
        UserError: the data are wanted on the device and do not fit.
    """
    if not wanted or (wanted == "auto" and jax.default_backend() == "cpu"):
        return loaders
    if jax.process_count() > 1:  # each reads only its own rows
        if wanted is True:
            raise UserError(f'{where}: true is for a single process; expected false or "auto"')
        return loaders
    chosen = {
        # What is decoded or drawn at random as it is read may differ from one time to the next.
        split: one
        for split, one in loaders.items()
        if wanted is True or getattr(one, "whole_batches", False)
    }
    needed = sum({id(one.dataset): _size(one) for one in chosen.values()}.values())
    room = _free_memory(unknown=math.inf if wanted is True else 0)
    if wanted == "auto" and needed > SHARE * room:
        return loaders
    if needed > room:
        raise UserError(
            f"{where}: true, but the data take {needed:,} bytes and the device has {room:,} left; "
            'expected false, or "auto", which keeps to what fits'
        )
    tables = {}  # by data set: one that is split in two is there once
    return loaders | {split: _resident(one, tables, mesh) for split, one in chosen.items()}


def _resident(loader, tables, mesh):
    """A loader like it, whose batches hold Rows in place of arrays."""
    key = id(loader.dataset)
    if key not in tables:
        whole = dict(loader.read(np.arange(len(loader.dataset))))
        weight = whole.pop("weight", None)  # a loader's own stays where it weighs the padding
        everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
        tables[key] = jax.device_put(whole, everywhere), weight
    table, weight = tables[key]

    def read(indices):
        rows = jax.tree.map(lambda leaf: TableView(leaf, indices.astype(np.int32)), table)
        return rows if weight is None else rows | {"weight": np.asarray(weight)[indices]}

    resident = copy.copy(loader)
    resident.read, resident.prefetch = read, 0
    return resident


def _size(loader):
    """Bytes of all examples, were each like the first."""
    first = loader.read(np.arange(1))
    return len(loader.dataset) * sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(first))


def _free_memory(unknown):
    """Bytes left on the device, or `unknown` where it does not say."""
    memory = jax.local_devices()[0].memory_stats() or {}
    return memory["bytes_limit"] - memory["bytes_in_use"] if "bytes_limit" in memory else unknown
