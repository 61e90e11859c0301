"""Several devices, of one process or of many: which device holds which part of what.

All devices train one network on one batch, as a single device would. Each computes its rows of the
batch; where the arithmetic needs all rows (a gradient, a mean, BatchNorm's statistics) XLA inserts
the communication. So nothing else in this project knows how many devices there are.

The state (parameters, optimizer, averages) is replicated on every device, or split into
`devices.shards` parts, each on a device of its own. Then the parameters are gathered for the
network's arithmetic, and everything else is kept and updated in parts.

    devices      0 1 2 3 4 5 6 7                              "shards": 4
    batch        a block of rows each: 0 1 2 3 4 5 6 7
    state        parts 0 1 2 3, and again 0 1 2 3
"""

import copy
import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from data_loader.device_cache import TableView, map_views
from utils import UserError

AXES = ("replicas", "shards")  # of the mesh: replicas of the state, and the parts of each
SMALLEST = 1024  # elements of an array that is worth splitting


def make_mesh(wanted):
    """Returns the mesh of the config's section `devices`; None for a single device.

    It is in the order of the processes, so that each has its rows of a batch in one block.
    """
    processes = jax.process_count()
    each = min(wanted.count or jax.device_count(), jax.device_count()) // processes
    if each * processes < 2:
        return None
    devices = [jax.local_devices(process)[:each] for process in range(processes)]
    shards = wanted.shards if each * processes % wanted.shards == 0 else 1
    grid = np.array(devices).reshape(-1, shards)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_devices(config, batch_size, where="config.json"):
    """Checks that the config's devices exist, and that they can split a batch of the training."""
    wanted, processes, available = config.devices, jax.process_count(), jax.device_count()
    count = wanted.count or available
    if count > available or count % processes:
        each = f", as many of each of {processes} processes" if processes > 1 else ""
        raise UserError(
            f"{where}: devices.count: expected at most {available}{each}, got {count}; "
            "null takes all of them"
        )
    if count % wanted.shards:
        raise UserError(
            f"{where}: devices.shards: {wanted.shards} do not divide {count} devices; "
            "expected 1, or a divisor"
        )
    parts = count * config.training.accumulate
    if batch_size % parts:
        of = f" x {config.training.accumulate} pieces (training.accumulate)" * (parts > count)
        raise UserError(
            f"{where}: data_loader.train: a batch of {batch_size} cannot be split among {count} "
            f"devices{of}; expected a multiple of {parts}, such as "
            f"{max(batch_size // parts, 1) * parts}, or fewer devices: devices.count=..."
        )


def shard_loaders(loaders, mesh):
    """Returns the loaders by split, each reading this process's rows of every batch."""
    if mesh is None:
        return loaders
    sharded = {}
    for split, loader in loaders.items():
        sharded[split] = copied = copy.copy(loader)
        copied.shard = (jax.process_index(), jax.process_count())
        if split != "train":  # rounded up to a multiple; padding has weight 0
            copied.batch_size = -(-loader.batch_size // mesh.size) * mesh.size
    return sharded


def put_batch(batch, mesh, axis=0):
    """Returns a batch on the devices, each holding its rows; without a mesh the batch unchanged.

    Args:
        batch: tree of this process's rows; it may hold TableViews of data cached on the device.
        mesh: of the devices, or None.
        axis: the axis of the examples.
    """
    if mesh is None:
        return batch

    def put(leaf):
        if isinstance(leaf, TableView):
            return leaf._replace(indices=put(leaf.indices))
        spec = PartitionSpec(*[None] * axis, AXES) if np.ndim(leaf) > axis else PartitionSpec()
        sharding = NamedSharding(mesh, spec)
        if jax.process_count() == 1:
            return jax.device_put(leaf, sharding)
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

    return map_views(put, batch)


def put_state(state, mesh):
    """Returns a state, which every process has as a whole, on the devices, by `state_sharding`."""
    if mesh is None:
        return jax.device_put(state)

    def put(leaf):
        array = np.asarray(leaf)
        return jax.make_array_from_callback(
            array.shape, state_sharding(mesh, array.shape), lambda at: array[at]
        )

    return jax.tree.map(put, state)


def state_sharding(mesh, shape):
    """Returns the sharding of an array of the state: split along its longest divisible axis."""
    parts = mesh.shape["shards"]
    divisible = [axis for axis, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or not divisible or math.prod(shape) < SMALLEST:
        return NamedSharding(mesh, PartitionSpec())
    longest = max(divisible, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, "shards"))


def with_gathered_params(forward, mesh):
    """Returns the forward that gathers sharded parameters before it uses them."""
    if mesh is None or mesh.shape["shards"] == 1:
        return forward

    def forward_gathered(params, inputs, key, train):
        return forward(_replicated(params, mesh), inputs, key, train)

    return forward_gathered


def shard_functions(init, update, evaluate, mesh):
    """Returns init, update and evaluate, not compiled yet, as the mesh's devices compute them."""
    if mesh is None:
        return init, update, evaluate

    def sharded(state):
        return jax.tree.map(
            lambda leaf: jax.lax.with_sharding_constraint(leaf, state_sharding(mesh, leaf.shape)),
            state,
        )

    def init_sharded(batch):
        return sharded(init(batch))

    def update_sharded(state, batch):
        state, metrics = update(state, batch)
        return sharded(state), _replicated(metrics, mesh)

    def evaluate_sharded(params, batch):
        metrics, outputs = evaluate(params, batch)
        return _replicated(metrics, mesh), outputs

    return init_sharded, update_sharded, evaluate_sharded


def replicate(tree):
    """Returns the tree in a form that this process can read; all processes call it."""

    def gather(leaf):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            return leaf
        everywhere = NamedSharding(leaf.sharding.mesh, PartitionSpec())
        return jax.jit(lambda array: array, out_shardings=everywhere)(leaf)

    return jax.tree.map(gather, tree)


def to_host(tree):
    """Returns the tree as NumPy arrays, or None if other processes have parts of it."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    if all(leaf.is_fully_addressable or leaf.is_fully_replicated for leaf in leaves):
        return jax.tree.map(np.asarray, tree)
    return None


def _replicated(tree, mesh):
    """Returns the tree, replicated on each device."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, everywhere), tree)
