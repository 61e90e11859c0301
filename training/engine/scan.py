"""Several updates in one call (`training.steps_per_call`).

On an accelerator a small network's update is done before the host has asked for the next. Then
several are asked for at once: a `lax.scan` over their batches, each step giving the same bits as a
call of its own.
"""

from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np

from data_loader.device_cache import TableView, gather, map_views
from training.common.timing import timed
from training.distributed.sharding import put_batch


def even_steps(batches, most):
    """Returns how many batches go into a call: at most `most`, the last call nearly full."""
    return -(-batches // -(-batches // most))


def device_batches(loader, steps, mesh):
    """Returns `batches(epoch, start=0)`: what the update takes, and its number of batches."""

    def batches(epoch, start=0):
        for batch, count in group_batches(loader.batches(epoch, start), steps):
            yield put_batch(batch, mesh, axis=int(steps > 1)), count

    return batches


def group_batches(batches, steps):
    """Yields what the update takes, call by call, with the number of batches in it.

    A single batch is passed on as it is. Several are stacked, and the last call of the epoch is
    filled up, so that it has the shape of every other.
    """
    while taken := _take(batches, steps):
        yield (taken[0] if steps == 1 else _stack(taken, steps)), len(taken)


def scan_steps(update, steps):
    """Returns the update over several batches, `update(state, {"batches", "real"})`.

    What it measured has a leading axis of `steps`.
    """

    def step(state, call):
        batch, real = call
        new, measured = update(state, batch)
        new = jax.tree.map(lambda after, before: jnp.where(real, after, before), new, state)
        return new, measured

    def update_several(state, call):
        real = jnp.arange(steps) < call["real"]
        return jax.lax.scan(step, state, (gather(call["batches"]), real))

    return update_several


@timed("data")
def _take(batches, count):
    return list(islice(batches, count))


def _stack(batches, steps):
    def stack(*leaves):
        if isinstance(leaves[0], TableView):
            return TableView(leaves[0].table, np.stack([leaf.indices for leaf in leaves]))
        return np.stack(leaves)

    filled = batches + [batches[-1]] * (steps - len(batches))
    return {"batches": map_views(stack, *filled), "real": np.int32(len(batches))}
