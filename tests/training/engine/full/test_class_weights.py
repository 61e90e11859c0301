"""Weights for the classes: which they are, what they change, and what is refused."""

import jax
import numpy as np
import pytest

from training.config import read_config
from training.engine.build import build
from training.engine.initialize import first_batch


def losses_and_gradients(experiment, batch, weights):
    """The weighted mean loss and its gradient of the first layer, by JAX, from the definition."""
    state = experiment.init(batch)
    each = np.float32(1) if weights is None else weights[batch["targets"]]

    def loss(params):
        outputs, _ = experiment.forward(params, batch["inputs"], experiment.step_key(0), True)
        right = jax.nn.log_softmax(outputs)[np.arange(len(outputs)), batch["targets"]]
        return -(each * batch["weight"] * right).sum() / (each * batch["weight"]).sum()

    return jax.value_and_grad(loss)(state.params)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_trained_loss_is_the_weighted_mean_and_the_test_loss_is_not_weighted(
    config_of, tmp_path, accumulate
):
    config = config_of(tmp_path)
    config["training"] |= {
        "class_weights": [1.0, 0.0, 5.0, 1.0, 1.0, 2.0, 1.0, 1.0, 0.5, 1.0],
        "optimizer": {"name": "sgd", "args": {"learning_rate": 1.0, "momentum": 0}},
        "accumulate": accumulate,
    }
    config["data_loader"]["augment"] = None
    experiment = build(read_config(config))
    batch = first_batch(experiment)
    weights = np.float32(config["training"]["class_weights"])
    loss, gradient = losses_and_gradients(experiment, batch, weights)
    before = experiment.init(batch)
    after, measured = experiment.update(jax.tree.map(np.copy, before), batch)
    np.testing.assert_allclose(measured["loss"][0] / measured["loss"][1], loss, rtol=1e-5)
    change = jax.tree.map(lambda old, new: old - new, before.params, after.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), change, gradient)
    evaluated, _ = experiment.evaluate(before.params, batch)
    plain, _ = losses_and_gradients(experiment, batch, None)
    np.testing.assert_allclose(evaluated["loss"][0] / evaluated["loss"][1], plain, rtol=1e-5)
