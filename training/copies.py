"""Copies of a network that differ by their seed and are trained at once (`training.seeds`).

Copy i is the network that a run with the seed `seed + i` would train, but for the order of the
data, which all share: the first seed's. Its own are the parameters it begins with and what is drawn
at random in an update, such as augmentation and dropout.
"""

import jax
import numpy as np

from training.compiling import jit_evaluate, jit_init, jit_update
from training.resident import fetch
from training.trees import pick


def seeds_of(config):
    """Returns the copies' seeds, (copies,) uint32."""
    return np.arange(config.seed, config.seed + config.training.seeds, dtype=np.uint32)


def make_copies(init_of, update_of, evaluate, seeds):
    """Returns jitted init, update and evaluate of all copies; see `training.optimizers`.

    Args:
        init_of: (seed) -> init of a single network.
        update_of: (seed) -> update of a single network.
        evaluate: evaluate of a single network.
        seeds: (copies,).

    Returns:
        The three. What they take and return is as for a single network, but every array of the
        state and of what is measured has a leading axis, the copies. Outputs are the first copy's.
    """

    def init(batch):
        return jax.vmap(lambda seed: init_of(seed).__wrapped__(batch))(seeds)

    def update(state, batch):
        batch = fetch(batch)
        return jax.vmap(lambda seed, one: update_of(seed).__wrapped__(one, batch))(seeds, state)

    def evaluate_copies(params, batch):
        measured, outputs = jax.vmap(evaluate.__wrapped__, (0, None))(params, batch)
        return measured, pick(outputs, 0)

    evaluate_copies.__name__ = evaluate.__name__
    return jit_init(init), jit_update(update), jit_evaluate(evaluate_copies)
