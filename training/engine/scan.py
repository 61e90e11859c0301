"""Several updates in one call (`training.steps_per_call`), several seeds (`training.seeds`).

On an accelerator a small network's update is done before the host has asked for the next. Then
several are asked for at once: a `lax.scan` over their batches, each step giving the same bits as a
call of its own.

Networks of several seeds are trained at once, too. Network i is the one that a run with the seed
`seed + i` would train, except for the order of the data, which all share: that of the first seed.
Its own are the initial parameters and whatever is drawn at random in an update.
"""

from itertools import islice

import jax
import numpy as np

from data_loader.device_cache import TableView, gather, map_views
from training.common.timing import timed
from training.common.trees import pick
from training.distributed.sharding import put_batch

STEPS = 16  # in a call, where the data are on an accelerator


def default_steps(loader):
    """Returns how many batches go into a call where the config does not say.

    On an accelerator a call takes the host .5 to 1.5 ms, and reading each number that an update
    measures about as long as starting it; with the data there, a call of several costs no more.
    """
    cached = getattr(loader, "on_device", False)
    return STEPS if cached and jax.default_backend() != "cpu" else 1


def even_steps(batches, most):
    """Returns how many batches go into a call: at most `most`, the last call nearly full."""
    return -(-batches // -(-batches // most))


def device_batches(loader, steps, mesh):
    """Returns `batches(epoch, start=0, room=None)`: what the update takes, its number of batches.

    A call has at most as many batches as `room()` returns when it is made.
    """

    def batches(epoch, start=0, room=None):
        for batch, count in group_batches(loader.batches(epoch, start), steps, room):
            yield put_batch(batch, mesh, axis=int(steps > 1)), count

    return batches


def group_batches(batches, steps, room=None):
    """Yields what the update takes, call by call, with the number of batches in it.

    A single batch is passed on as it is. Several of one shape are stacked, and a call that has
    fewer, as the last of the epoch, the last before another shape or one with less `room`, is
    filled up, so that it has the shape of every other.
    """
    taken = []
    while taken := taken + _take(batches, max(_most(steps, room) - len(taken), 0)):
        count = min(_of_one_shape(taken), _most(steps, room)) if steps > 1 else 1
        yield (taken[0] if steps == 1 else stack(taken[:count], steps)), count
        taken = taken[count:]


def scan_steps(update, steps):
    """Returns the update over several batches, `update(state, batches)`; see `stack`.

    What it measured has a leading axis of `steps`.
    """

    def update_several(state, batches):
        return jax.lax.scan(update, state, gather(batches), length=steps)

    return update_several


def vmap_seeds(init_of, step_of, evaluate, seeds):
    """Returns init, update and evaluate of all seeds at once; see training/engine/step.py.

    What they take and return is as for a single network, but every array of the state and of what
    is measured has a leading axis, the seeds. Outputs are the first seed's. `init_of` and `step_of`
    map a seed to the function of a single network.
    """

    def init(batch):
        return jax.vmap(lambda seed: init_of(seed)(batch))(seeds)

    def update(state, batch):
        batch = gather(batch)
        return jax.vmap(lambda seed, one: step_of(seed)(one, batch))(seeds, state)

    def evaluate_seeds(params, batch):
        measured, outputs = jax.vmap(evaluate, (0, None))(params, batch)
        return measured, pick(outputs, 0)

    return init, update, evaluate_seeds


def _most(steps, room):
    return steps if steps == 1 or room is None else min(steps, room())


@timed("data")
def _take(batches, count):
    return list(islice(batches, count))


def _of_one_shape(batches):
    """How many of the first batches have the shapes and types of the very first."""
    types = [[(np.shape(leaf), getattr(leaf, "dtype", None)) for leaf in jax.tree.leaves(batch)]
             for batch in batches]  # fmt: skip
    others = (number for number, one in enumerate(types) if one != types[0])
    return next(others, len(batches))


def stack(batches, steps):
    """Returns what the update of `scan_steps` takes: up to `steps` batches, filled up to these.

    What fills it up has no weight, so that the update changes nothing.
    """

    def stack_leaves(*leaves):
        if isinstance(leaves[0], TableView):
            return TableView(leaves[0].table, np.stack([leaf.indices for leaf in leaves]))
        return np.stack(leaves)

    nothing = batches[-1] | {"weight": np.zeros_like(batches[-1]["weight"])}
    return map_views(stack_leaves, *batches, *[nothing] * (steps - len(batches)))
