"""What parts of the network by path cost, and what they are compared with."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model.model import mlp
from model.modules import Layers, linear
from tests.helpers.project import same_arrays
from tests.training.engine.test_parts import normed, prepared
from training.common.trees import named_leaves
from training.engine.parts import Parts, with_layer_options
from utils import UserError


def test_what_is_not_frozen_learns_as_if_the_rest_were_a_constant(trusty):
    """The same update, written with jax.grad of the trained part and optax alone."""
    rate, clip = 0.1, 0.5
    trusty["model"] = {"name": "tests.training.engine.test_parts:normed"}
    trusty["training"] |= {
        "freeze": ["hidden", "norm"], "clip_norm": clip, "ema": None,
        "optimizer": {"name": "sgd", "args": {"learning_rate": rate}},
    }  # fmt: skip
    experiment, state, batch = prepared(trusty)
    params = jax.tree.map(np.array, state.params)

    def loss_of(out):
        x = experiment.forward.preprocess(batch["inputs"])
        given = params | {"out": out}
        logits, _ = normed(x, params=given, train=False)  # the statistics of the frozen norm
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"]).mean()

    grads = jax.grad(loss_of)(params["out"])
    tx = optax.chain(optax.clip_by_global_norm(clip), optax.sgd(rate))
    updates, _ = tx.update(grads, tx.init(params["out"]))
    state, measured = experiment.update(state, batch)
    for name, wanted in optax.apply_updates(params["out"], updates).items():
        np.testing.assert_allclose(state.params["out"][name], wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(measured["gradient_norm"][0], optax.tree.norm(grads), rtol=1e-5)


def test_a_loss_that_asks_for_the_parameters_is_given_the_frozen_ones(trusty):
    trusty["training"] |= {
        "freeze": ["hidden", "norm"], "loss": "tests.training.engine.full.test_parts:size_of_all",
        "optimizer": {"name": "sgd", "args": {"learning_rate": 0.001}},
    }  # fmt: skip
    experiment, state, batch = prepared(trusty)
    params = jax.tree.map(np.array, state.params)
    state, measured = experiment.update(state, batch)
    wanted = sum(np.square(array).sum() for array in jax.tree.leaves(params))
    assert float(measured["loss"][0]) / len(batch["weight"]) == pytest.approx(wanted, rel=1e-5)
    assert same_arrays({"": state.params["hidden"]["kernel"]}, {"": params["hidden"]["kernel"]})
    assert not np.array_equal(state.params["out"]["kernel"], params["out"]["kernel"])


def size_of_all(outputs, targets, *, params):
    """A loss: the sum of all parameters' squares."""
    total = sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params))
    return jnp.full(len(targets), total)


def test_the_backward_pass_of_a_frozen_stem_is_not_computed(config):
    config["model"]["args"] = {"feat_dims": [64, 16]}

    def flops(freeze):
        config["training"]["freeze"] = freeze
        experiment, state, batch = prepared(config)
        return experiment.update.lower(state, batch).compile().cost_analysis()["flops"]

    stem = 2 * 784 * 64 * 128  # of one product of matrices: there are two, forward and backward
    assert flops([]) - flops(["hidden0"]) > 0.9 * stem


def test_multiplied_rates_are_those_of_separate_optimizers(config):
    config["data_loader"]["augment"] = None
    config["training"]["optimizer"] = {"name": "adamw", "args": {"learning_rate": 0.001}}
    config["training"]["learning_rates"] = {"head.bias": 3, "head": 10, "hidden*": 0.5}
    experiment, state, batch = prepared(config)
    reference = optax.partition(
        {rate: optax.adamw(0.001 * rate, weight_decay=1e-4) for rate in (0.5, 3, 10)},
        {"hidden0": {"kernel": 0.5, "bias": 0.5}, "head": {"kernel": 10, "bias": 3}},
    )
    params = jax.tree.map(jnp.array, state.params)
    held = reference.init(params)

    def loss_of(params):
        x = experiment.forward.preprocess(batch["inputs"])
        logits, _ = mlp(x, [16], params=params)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"]).mean()

    for _ in range(3):
        updates, held = reference.update(jax.grad(loss_of)(params), held, params)
        params = optax.apply_updates(params, updates)
        state, measured = experiment.update(state, batch)
    for name, wanted in named_leaves(params).items():
        np.testing.assert_allclose(named_leaves(state.params)[name], wanted, rtol=1e-3, atol=1e-5)
    assert float(measured["learning_rate"][0]) == pytest.approx(0.001)


def test_rematerialised_layers_save_memory_and_give_the_same_update(config):
    config["model"] = {"name": "tests.training.engine.full.test_parts:deep"}
    config["training"]["ema"] = None

    def of(remat):
        config["training"]["remat"] = remat
        experiment, state, batch = prepared(copy.deepcopy(config))
        # On a CPU XLA would find that what is computed again is there already, and keep it.
        options = {"xla_disable_hlo_passes": "cse_barrier_expander,optimization_barrier_expander"}
        compiled = experiment.update.lower(state, batch).compile(compiler_options=options)
        return compiled.memory_analysis().temp_size_in_bytes, compiled(state, batch)[0]

    (memory, plain), (less, again) = of([]), of(["block*"])
    assert less < 0.6 * memory
    for name, array in named_leaves(again.params).items():
        np.testing.assert_allclose(array, named_leaves(plain.params)[name], rtol=2e-6, atol=1e-7)


def deep(x, *, params=None, key=None, train=False):
    """A network with blocks of many values."""
    layer = Layers(params, key, train)
    y = x.reshape(len(x), -1)
    for index in range(4):
        y = layer(f"block{index}", _wide, y)
    return layer("head", linear, y, 10), layer.params


def _wide(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    scale = layer.array("scale", x.shape[-1:], jax.nn.initializers.ones)
    y = x * scale
    for index in range(4):
        y = jnp.tanh(y) + index
    return x + y * scale, layer.params


def test_without_these_keys_the_step_is_that_of_a_plain_network(config):
    """No option reaches the layers, and the network is passed on as it is."""
    assert with_layer_options(mlp, Parts()) is mlp
    experiment, state, batch = prepared(config)
    config["training"]["learning_rates"] = {"*": 1.0}
    other, same, _ = prepared(config)
    after = named_leaves(experiment.update(state, batch)[0].params)
    assert same_arrays(after, named_leaves(other.update(same, batch)[0].params))


WRONG = [
    ({"freeze": ["hiden0"]}, r"training.freeze: no part 'hiden0' .*did you mean 'hidden0'"),
    ({"freeze": ["block*"]}, r"training.freeze: no part 'block\*' in the network"),
    ({"freeze": [""]}, "training.freeze: no part '' in the network"),
    ({"freeze": ["*"]}, "is all of the network, so nothing is left"),
    ({"freeze": ["hidden0", "head"]}, "is all of the network, so nothing is left"),
    ({"remat": ["hidden"]}, "training.remat: no part 'hidden' .*did you mean 'hidden0'"),
    ({"learning_rates": {"heed": 2}}, "training.learning_rates: no part 'heed'.*'head'"),
    ({"learning_rates": {"*": 2, "head": 3}}, "'head' has no effect.*the first that fits counts"),
    (
        {"freeze": ["head"], "learning_rates": {"head": 3}},
        "training.learning_rates: no part 'head'",
    ),
    ({"learning_rates": {"head": 0}}, "training.learning_rates.head"),
    ({"layer_decay": 1.5}, "training.layer_decay"),
]


@pytest.mark.parametrize(("values", "expected"), WRONG)
def test_what_cannot_be_meant_is_refused(config, values, expected):
    config["training"] |= values
    with pytest.raises(UserError, match=expected):
        prepared(config)
