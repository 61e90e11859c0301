"""How many batches one call of the update takes: one, unless `training.steps_per_call` says more.

On an accelerator a small network's update is done before the host has asked for the next. Then
several are asked for at once: a `lax.scan` over their batches, each step to the bit what a call of
its own would have made of it.
"""

from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np

from training.compiling import jit_update
from training.profiling import spent
from training.resident import Rows, fetch, map_rows


def even_steps(batches, most):
    """Returns how many batches of an epoch go into a call: at most `most`, the last nearly full."""
    return -(-batches // -(-batches // most))


def deal(batches, steps):
    """Yields what the update takes, call by call, with the number of batches in it.

    Args:
        batches: iterator over those that are left of an epoch.
        steps: batches in a call. One is handed on as it is. Several are stacked, and the last call
            of the epoch is filled up, so that it has the shape of every other.
    """
    while taken := _take(batches, steps):
        yield (taken[0] if steps == 1 else _stack(taken, steps)), len(taken)


def several(update, steps):
    """Returns the jitted update over several batches, `update(state, {"batches", "real"})`.

    Args:
        update: of one batch.
        steps: batches in a call.

    Returns:
        The update; what it measured has a leading axis of `steps`.
    """

    def step(state, call):
        batch, real = call
        new, measured = update.__wrapped__(state, batch)
        return jax.tree.map(
            lambda after, before: jnp.where(real, after, before), new, state
        ), measured

    def update_several(state, call):
        real = jnp.arange(steps) < call["real"]
        return jax.lax.scan(step, state, (fetch(call["batches"]), real))

    update_several.__name__ = update.__name__
    return jit_update(update_several)


@spent("data")
def _take(batches, count):
    return list(islice(batches, count))


def _stack(batches, steps):
    def stack(*leaves):
        if isinstance(leaves[0], Rows):
            return Rows(leaves[0].table, np.stack([leaf.indices for leaf in leaves]))
        return np.stack(leaves)

    filled = batches + [batches[-1]] * (steps - len(batches))
    return {"batches": map_rows(stack, *filled), "real": np.int32(len(batches))}
