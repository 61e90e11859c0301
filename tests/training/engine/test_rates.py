"""The learning rates and gradient norms that a run logs, compared with independent ones."""

import math

import jax
import numpy as np
import optax
import pytest

from tests.helpers.compiled import make_init, make_update
from tests.helpers.project import by_set
from training.common.records import read_lines
from training.engine.step import OptimizerGroup, make_forward
from training.loss import mean_squared_error
from training.optimizers import sgd

BATCHES, EPOCHS = 8, 2  # of the small MNIST
STEPS = np.arange(BATCHES * EPOCHS)
COSINE = {
    "name": "cosine_decay_schedule",
    "args": {"init_value": 0.1, "decay_steps": "total_steps"},
}
COSINE_RATES = 0.05 * (1 + np.cos(math.pi * STEPS / len(STEPS)))


def test_each_update_logs_the_learning_rate_it_used(run, config):
    optimizer = {"name": "sgd", "args": {"learning_rate": COSINE}}
    config["training"] |= {"optimizer": optimizer, "epochs": EPOCHS, "log_every": "1 step"}
    code, folder = run()
    assert code == 0
    lines = [line for line in read_lines(folder / "metrics.jsonl") if "batch" in line]
    assert [line["step"] for line in lines] == list(STEPS + 1)
    np.testing.assert_allclose([line["learning_rate"] for line in lines], COSINE_RATES, rtol=1e-5)
    assert all(line["gradient_norm"] > 0 for line in lines)


@pytest.mark.parametrize("pieces", by_set([3], [1, 3]))
@pytest.mark.parametrize("clip", by_set([0.5], [None, 0.5]))
def test_the_gradient_norm_is_that_of_numpy_for_a_linear_model(run, pieces, clip):
    """Before clipping, of the whole batch without its padding; each optimizer group has its own."""
    random = np.random.default_rng(0)
    inputs, targets = random.normal(size=(12, 5)), random.normal(size=(12, 1))
    weights = {"one": random.normal(size=(5, 1)), "two": random.normal(size=(5, 1))}
    real = np.append(np.ones(9), np.zeros(3))
    batch = {"inputs": inputs, "targets": targets, "weight": real}
    batch = jax.tree.map(np.float32, batch)

    def model(x, *, params=None, key=None, train=False):
        params = jax.tree.map(np.float32, weights) if params is None else params
        return x @ params["one"] + x @ params["two"], params

    def doubled(outputs, targets):
        return 2 * mean_squared_error(outputs, targets)

    optimizer = sgd(0.1) if clip is None else optax.chain(optax.clip_by_global_norm(clip), sgd(0.1))
    groups = {
        "first": OptimizerGroup(mean_squared_error, optimizer, ("one",)),
        "second": OptimizerGroup(doubled, optimizer, ("two",)),
    }
    forward = make_forward(model)
    state = make_init(forward, groups)(batch)
    _, measured = make_update(forward, groups, {}, accumulate=pieces)(state, batch)
    errors = inputs @ (weights["one"] + weights["two"]) - targets
    gradient = 2 * (inputs * errors)[:9].sum(0) / 9
    for name, factor in (("first", 1), ("second", 2)):
        norm, count = measured[f"{name}_gradient_norm"]
        assert count == 1
        assert norm == pytest.approx(factor * np.linalg.norm(gradient), rel=1e-5)
