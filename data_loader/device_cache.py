"""Keeps a data set in device memory: a batch is only indices (`data_loader.cache_on_device`).

Order and values are exactly those of the loader; the update gathers the examples on the device
instead of the loader on the host. A CPU gains nothing, as host and device share their memory.
"""

import copy
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_loader.labels import without_ignored
from data_loader.streams import is_stream
from utils import UserError

SHARE = 0.5  # of the device's free memory that "auto" may use


class TableView(NamedTuple):
    """Some examples of a table on the device; takes the place of an array in a batch."""

    table: Any  # (examples, ...)
    indices: Any  # (batch,) or (batches, batch) int32, rows of the table


def gather(tree: Any) -> Any:
    """Returns the tree with each TableView replaced by the rows of its table."""

    def take(leaf):
        if not isinstance(leaf, TableView):
            return leaf
        return leaf.table.at[leaf.indices].get(mode="promise_in_bounds")

    return map_views(take, tree)


def map_views(function: Callable, *trees: Any) -> Any:
    """Returns `jax.tree.map(function, *trees)`, with each TableView as a leaf."""
    return jax.tree.map(function, *trees, is_leaf=lambda leaf: isinstance(leaf, TableView))


def cache_on_device(
    loaders: dict, wanted: bool | Literal["auto"], mesh: Mesh | None, where: str
) -> dict:
    """Returns the loaders, with the data of those chosen in device memory.

    Args:
        loaders: {split: loader}.
        wanted: True, False, or "auto": on an accelerator, data sets that are in host memory
            anyway, if they fit.
        mesh: of the devices, each of which gets all data; None for a single device.
        where: the key's place in the config.

    Raises:
        UserError: `wanted` is True, and the data do not fit or there are several processes.
    """
    if not wanted or (wanted == "auto" and jax.default_backend() == "cpu"):
        return loaders
    if wanted is True and any(is_stream(loader.dataset) for loader in loaders.values()):
        raise UserError(f'{where}: true, but a stream is not kept; expected false or "auto"')
    if jax.process_count() > 1:  # each reads only its own rows
        if wanted is True:
            raise UserError(f'{where}: true is for a single process; expected false or "auto"')
        return loaders
    chosen = {
        # Samples that are decoded or random may differ each time they are read.
        split: loader
        for split, loader in loaders.items()
        if wanted is True or getattr(loader, "whole_batches", False)
    }
    needed = sum({id(loader.dataset): _size(loader) for loader in chosen.values()}.values())
    free = _free_memory(unknown=math.inf if wanted is True else 0)
    if wanted == "auto" and needed > SHARE * free:
        return loaders
    if needed > free:
        raise UserError(
            f"{where}: true, but the data take {needed:,} bytes and the device has {free:,} left; "
            'expected false, or "auto", which caches only data that fit'
        )
    tables = {}  # by data set: training and validation share one
    return loaders | {split: _cached(loader, tables, mesh) for split, loader in chosen.items()}


def _cached(loader, tables, mesh):
    """Returns a copy of the loader whose batches contain a TableView in place of each array."""
    key = id(loader.dataset)
    if key not in tables:
        whole = dict(loader.read(np.arange(len(loader.dataset))))
        weight = whole.pop("weight", None)  # stays on the host, where it is combined with padding
        if weight is not None:
            whole["targets"] = without_ignored(whole["targets"], np.asarray(weight))
        everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
        tables[key] = jax.device_put(whole, everywhere), weight, whole["targets"]
    table, weight, targets = tables[key]

    def read(indices):
        rows = jax.tree.map(lambda leaf: TableView(leaf, indices.astype(np.int32)), table)
        return rows if weight is None else rows | {"weight": np.asarray(weight)[indices]}

    cached = copy.copy(loader)
    cached.read, cached.prefetch, cached.on_device = read, 0, True
    cached.in_memory = targets if isinstance(targets, np.ndarray) else None
    return cached


def _size(loader):
    """Returns the bytes of all examples, assuming that each is as large as the first."""
    first = loader.read(np.arange(1))
    return len(loader.dataset) * sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(first))


def _free_memory(unknown):
    """Returns the bytes left on the device, or `unknown` if it does not report them."""
    memory = jax.local_devices()[0].memory_stats() or {}
    return memory["bytes_limit"] - memory["bytes_in_use"] if "bytes_limit" in memory else unknown
