"""Losses that name their parts, and ask for step, key, params, train or weight."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers import parts
from tests.helpers.updates import batch_of, copy, make, network
from training import optimizers
from training.engine.step import OptimizerGroup
from training.loss import cross_entropy


def group(loss, optimizer=None, *paths):
    return {"network": OptimizerGroup(loss, optimizer or optimizers.sgd(0.1), paths)}


def mean_of_parts(params, batch, step):
    """The same loss, averaged by hand."""
    outputs, _ = network(batch["inputs"], params=params, train=True)
    weight = batch["weight"]
    right = (cross_entropy(outputs, batch["targets"]) * weight).sum() / weight.sum()
    size = (jnp.square(outputs).mean(-1) * weight).sum() / weight.sum()
    return right + min(step / 4, 1.0) * size, right, min(step / 4, 1.0) * size


def test_each_part_is_averaged_as_a_single_loss_and_the_sum_is_trained():
    state, update, evaluate = make(groups=group(parts.of_parts))
    batch = batch_of(7)
    for step in range(3):
        expected = mean_of_parts(state.params, batch, step)
        grads = jax.grad(lambda params, step=step: mean_of_parts(params, batch, step)[0])(
            state.params
        )
        wanted = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
        state, measured = update(copy(state), batch)
        means = [float(measured[name][0] / measured[name][1]) for name in ("loss", "right", "size")]
        np.testing.assert_allclose(means, expected, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.params, wanted)
    measured, _ = evaluate(state.params, batch)
    outputs, _ = network(batch["inputs"], params=state.params)
    total = (jnp.square(outputs).mean(-1) * batch["weight"]).sum()
    np.testing.assert_allclose(
        measured["size"][0] / measured["size"][1], total / batch["weight"].sum(), rtol=1e-5
    )  # annealed to the end
