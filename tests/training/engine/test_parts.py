"""Parts of the network by path: frozen, learning at another rate, rematerialised."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.model import mnist_model, vit
from model.modules import Layers, batch_norm, dropout, linear
from training.common.trees import fits, named_leaves
from training.config import read_config
from training.engine.build import build
from training.engine.initialize import first_batch, fresh_state
from training.engine.parts import Parts, multipliers, with_layer_options
from training.engine.step import make_forward
from utils import UserError


def prepared(config):
    """Returns (experiment, its first state, a batch)."""
    config = read_config(config)
    experiment = build(config)
    state = fresh_state(experiment, config)
    return experiment, state, first_batch(experiment)


def updated(config, count=3):
    """Returns {name: array} of the state before and after some updates."""
    experiment, state, batch = prepared(config)
    before = jax.tree.map(np.array, state)
    for _ in range(count):
        state, measured = experiment.update(state, batch)
    assert bool(measured["finite"])
    return named_leaves(before._asdict()), named_leaves(jax.tree.map(np.array, state)._asdict())


@pytest.mark.parametrize(
    ("name", "path", "below", "expected"),
    [
        ("stem/kernel", "stem", True, True),
        ("stem/kernel", "stem", False, False),
        ("stem_norm/scale", "stem", True, False),
        ("block1/norm/scale", "block*/norm", True, True),
        ("block1/norm/scale", "block*.norm", True, True),
        ("blocks/1/norm", "blocks.*.norm", False, True),
        ("block1/attention/norm", "block*/norm", False, False),
        ("norm/scale", "**/norm", True, True),
        ("a/b/norm/scale", "**/norm", True, True),
        ("a/normal", "**/norm", True, False),
        ("a/b", "*", False, False),
        ("a+b/c", "a+b", True, True),
    ],
)
def test_paths_and_globs_fit_as_documented(name, path, below, expected):
    assert fits(name, (path,), below) is expected


def test_frozen_parts_keep_every_bit_and_cost_no_state(trusty):
    trusty["training"] |= {"freeze": ["hidden", "norm"], "clip_norm": 1.0}
    before, after = updated(trusty)
    for name, array in before.items():
        if name.startswith(("params/hidden", "params/norm")):
            assert np.array_equal(array, after[name]), name
    assert not np.array_equal(before["params/out/kernel"], after["params/out/kernel"])
    of_trained = [name for name in after if name.startswith(("optimizers/", "ema_params/"))]
    assert of_trained
    assert not [name for name in of_trained if "hidden" in name or "norm/" in name]


def normed(x, *, params=None, key=None, train=False):
    """A network whose first layers are frozen in the test above."""
    layer = Layers(params, key, train)
    y = jax.nn.relu(layer("norm", batch_norm, layer("hidden", linear, x.reshape(len(x), -1), 16)))
    return layer("out", linear, y, 10), layer.params


VIT = {"patches": 0, "position": 0, "block0": 1, "block1": 2, "norm": 3, "head": 3}
SAMPLE = {"stem": 0, "stem_norm": 0, "stage0": 1, "down1": 2, "stage1": 2, "down2": 3, "stage2": 3}
SAMPLE |= {"norm": 4, "hidden": 4, "head": 4}


def numbered(x, *, params=None, key=None, train=False):
    """A network with an encoder and a decoder, whose names are not in the order of the alphabet."""
    layer = Layers(params, key, train)
    y = x.reshape(len(x), -1)
    for name in ("start", "down0", "down1", "down1_gate", "bottom", "a_up1", "a_up0", "an_end"):
        y = layer(name, linear, y, 3)
    return y, layer.params


NUMBERED = {"start": 0, "down0": 1, "down1": 2, "down1_gate": 2, "bottom": 2, "a_up1": 2}
NUMBERED |= {"a_up0": 3, "an_end": 4}


@pytest.mark.parametrize(
    ("network", "args", "depths"),
    [(vit, {"depth": 2}, VIT), (mnist_model, {}, SAMPLE), (numbered, {}, NUMBERED)],
)
def test_layer_decay_is_a_power_of_the_distance_to_the_last_layer(network, args, depths):
    def forward(params, inputs, key, train):
        return network(inputs, **args, params=params, key=key, train=train)

    rates = multipliers(Parts(layer_decay=0.5), forward, jnp.zeros((2, 1, 28, 28)))
    top = max(depths.values())
    assert {name.partition("/")[0] for name in rates} == set(depths)
    for name, rate in rates.items():
        assert rate == 0.5 ** (top - depths[name.partition("/")[0]])


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["hiden0"], r"training.freeze: no part 'hiden0' .*did you mean 'hidden0'"),
        (["*"], "is all of the network, so nothing is left"),
    ],
)
def test_freezing_nothing_or_everything_is_refused(config, paths, expected):
    config["training"]["freeze"] = paths
    with pytest.raises(UserError, match=expected):
        prepared(config)


def test_a_network_without_numbered_layers_has_no_layer_decay(config):
    config["model"] = {"name": "tests.training.engine.test_parts:normed"}
    config["training"]["layer_decay"] = 0.5
    with pytest.raises(UserError, match=r"no order that can be read.*there are hidden, norm, out"):
        prepared(config)


def test_a_frozen_layer_drops_nothing():
    """It computes as in evaluation, whatever is around it."""

    def network(x, *, params=None, key=None, train=False):
        layer = Layers(params, key, train)
        return layer("stem", _dropping, x) + layer("drop", dropout, x, 0.5), layer.params

    forward = make_forward(with_layer_options(network, Parts(freeze=("stem",))))
    x = jnp.ones((4, 1000))
    y, _ = forward({}, x, jax.random.key(0), True)
    assert set(np.unique(np.asarray(y))) == {1.0, 3.0}  # 1 of the stem, and 0 or 2


def _dropping(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    return layer("inner", dropout, x, 0.5), layer.params
