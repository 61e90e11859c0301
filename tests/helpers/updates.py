"""What test_optimizers.py and its tests in full/ share."""

import jax
import jax.numpy as jnp
import numpy as np

from model.modules import Layers, batch_norm, dropout, linear
from tests.helpers.compiled import make_evaluate, make_init, make_update
from training import optimizers
from training.engine.step import OptimizerGroup, make_forward
from training.loss import cross_entropy
from training.metrics import accuracy


def same_bits(first, second):
    return all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


def network(x, rate=0.0, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    y = jax.nn.relu(layer("hidden", linear, x, 8))
    y = layer("drop", dropout, y, rate)
    return layer("out", linear, y, 3), layer.params


def with_statistics(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    y = layer("norm", batch_norm, layer("hidden", linear, x, 8))
    return layer("out", linear, jax.nn.relu(y), 3), layer.params


def as_it_is(inputs):
    return inputs


def batch_of(count, seed=0, size=12):
    random = np.random.default_rng(seed)
    index = np.arange(size) % count
    return {
        "inputs": random.normal(size=(count, 4)).astype(np.float32)[index],
        "targets": random.integers(0, 3, count).astype(np.int32)[index],
        "weight": (np.arange(size) < count).astype(np.float32),
    }


def make(model=network, optimizer=None, dtype="float32", groups=None, **settings):
    optimizer = optimizer or optimizers.sgd(0.5)
    groups = groups or {"network": OptimizerGroup(cross_entropy, optimizer)}
    forward = make_forward(model, as_it_is, dtype)
    ema = settings.get("ema")
    init = make_init(forward, groups, seed=0, ema=ema)
    update = make_update(forward, groups, {"accuracy": accuracy}, seed=0, **settings)
    return init(batch_of(12)), update, make_evaluate(forward, groups, {"accuracy": accuracy})


def copy(state):
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)


def without_weight(value=0.0):
    batch = batch_of(12, seed=1)
    batch["inputs"] += value
    return batch | {"weight": np.zeros(12, np.float32)}


def assert_nothing_was_measured(measured):
    assert np.asarray(measured.pop("finite")).all()
    for total, weight in measured.values():
        np.testing.assert_array_equal(total, np.zeros_like(total))
        np.testing.assert_array_equal(weight, np.zeros_like(weight))
