"""Networks that differ only by their seed, trained at once (`training.seeds`).

Network i is the one that a run with the seed `seed + i` would train, except for the order of the
data, which all share: that of the first seed. Its own are the initial parameters and whatever is
drawn at random in an update, such as augmentation and dropout.
"""

import jax

from data_loader.device_cache import gather
from training.common.trees import pick


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
