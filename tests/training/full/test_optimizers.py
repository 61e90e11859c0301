"""The update: groups of parameters, running statistics, bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.model import mnist_model, vit
from model.modules import Layers, linear
from tests.helpers.compiled import make_init, make_update
from tests.helpers.project import examples
from tests.helpers.updates import (
    as_it_is,
    batch_of,
    copy,
    make,
    network,
    same_bits,
    with_statistics,
)
from training import optimizers
from training.engine import step as steps
from training.engine.step import OptimizerGroup, eval_params, make_forward
from training.loss import cross_entropy, mean_squared_error


def test_running_statistics_are_updated_but_not_by_the_optimizer():
    decay = optimizers.adamw(0.1, weight_decay=10.0)
    state, update, _ = make(with_statistics, decay)
    assert not any("stats" in str(path) for path, _ in
                   jax.tree_util.tree_leaves_with_path(state.optimizers))  # fmt: skip
    batch, params = batch_of(12), copy(state.params)
    state, _ = update(state, batch)
    hidden = batch["inputs"] @ np.asarray(params["hidden"]["kernel"])
    mean = state.params["norm"]["stats"]["mean"]
    share = np.asarray(mean) / hidden.mean(0)
    np.testing.assert_allclose(share, share[0], rtol=1e-4)  # one and the same share of the mean
    assert 0 < share[0] < 1


def test_bfloat16_computes_coarsely_on_float32_weights():
    state, update, evaluate = make(with_statistics, dtype="bfloat16")
    assert evaluate(state.params, batch_of(12))[0]["loss"][0].dtype == jnp.float32
    exact, _, evaluate_exactly = make(with_statistics)
    _, outputs = evaluate(state.params, batch_of(12))
    _, exact_outputs = evaluate_exactly(exact.params, batch_of(12))
    assert outputs.dtype == jnp.float32
    assert np.abs(outputs - exact_outputs).max() > 1e-6
    np.testing.assert_allclose(outputs, exact_outputs, atol=0.05)
    state, _ = update(state, batch_of(12))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def operands(jaxpr):
    """Yields the dtypes that each product and convolution of a program takes."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield {operand.aval.dtype.name for operand in equation.invars}
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from operands(inner)


@pytest.mark.parametrize(("model", "backward"), [(mnist_model, True), (vit, False)])
def test_in_bfloat16_no_product_nor_convolution_takes_float32(model, backward):
    """Forward; and backward, but for attention, whose logits have float32 gradients."""
    batch = {
        "inputs": np.zeros((4, 1, 28, 28), np.float32),
        "targets": np.zeros(4, np.int32),
        "weight": np.ones(4, np.float32),
    }
    groups = {"network": OptimizerGroup(cross_entropy, optimizers.sgd(0.1))}
    forward = make_forward(model, as_it_is, "bfloat16")
    state = jax.eval_shape(make_init(forward, groups), batch)
    evaluate = steps.make_evaluate(forward, groups, {})
    programs = [jax.make_jaxpr(evaluate)(state.params, batch)]
    if backward:
        programs.append(jax.make_jaxpr(steps.make_step(forward, groups, {}))(state, batch))
    for program in programs:
        found = list(operands(program.jaxpr))
        assert len(found) > 10
        assert all(dtypes == {"bfloat16"} for dtypes in found)


def test_each_group_moves_only_its_params_by_its_own_loss():
    def louder(outputs, targets):
        return 10 * cross_entropy(outputs, targets)

    groups = {
        "body": OptimizerGroup(cross_entropy, optimizers.sgd(0.1), ("hidden",)),
        "head": OptimizerGroup(louder, optimizers.sgd(0.1), ("out",)),
    }
    state, update, _ = make(groups=groups)
    single, update_single, _ = make(optimizer=optimizers.sgd(0.1))
    before = copy(state.params)
    state, measured = update(state, batch_of(12))
    single, _ = update_single(single, batch_of(12))
    np.testing.assert_allclose(
        state.params["hidden"]["kernel"], single.params["hidden"]["kernel"], atol=1e-6
    )
    ours = state.params["out"]["kernel"] - before["out"]["kernel"]
    theirs = single.params["out"]["kernel"] - before["out"]["kernel"]
    np.testing.assert_allclose(ours, 10 * theirs, rtol=1e-3, atol=1e-6)
    body, head = measured["body_loss"][0], measured["head_loss"][0]
    np.testing.assert_allclose(head, 10 * body, rtol=1e-6)


def test_params_that_no_group_trains_stay_as_they_are():
    groups = {
        "head": OptimizerGroup(cross_entropy, optimizers.adamw(0.1, weight_decay=1.0), ("out",))
    }
    state, update, _ = make(groups=groups)
    before = copy(state.params)
    state, _ = update(state, batch_of(12))
    assert same_bits(before["hidden"], state.params["hidden"])
    assert not same_bits(before["out"], state.params["out"])


def test_a_regression_loss_trains_a_line():
    def line(x, *, params=None, key=None, train=False):
        layer = Layers(params, key, train)
        return layer("line", linear, x, 1), layer.params

    x = np.linspace(-1, 1, 12, dtype=np.float32)[:, None]
    batch = {"inputs": x, "targets": 3 * x - 1, "weight": np.ones(12, np.float32)}
    groups = {
        "network": OptimizerGroup(mean_squared_error, optimizers.adamw(0.1, weight_decay=0.0))
    }
    forward = make_forward(line, as_it_is)
    state = make_init(forward, groups)(batch)
    update = make_update(forward, groups, {})
    for _ in range(300):
        state, _ = update(state, batch)
    np.testing.assert_allclose(state.params["line"]["kernel"], [[3.0]], atol=1e-2)
    np.testing.assert_allclose(state.params["line"]["bias"], [-1.0], atol=1e-2)


def test_sgd_takes_the_gradient_that_finite_differences_find():
    state, update, _ = make()
    before, batch = copy(state.params), batch_of(12)
    state, _ = update(state, batch)
    with jax.enable_x64(True):
        slope = []
        for sign in (1, -1):
            moved = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), before)
            moved["out"]["kernel"][2, 1] += sign * 1e-5
            double = batch | {"inputs": batch["inputs"].astype(np.float64)}
            outputs, _ = network(double["inputs"], params=moved)
            slope.append(float(cross_entropy(outputs, batch["targets"]).mean()))
    gradient = (slope[0] - slope[1]) / 2e-5
    moved_by = state.params["out"]["kernel"][2, 1] - before["out"]["kernel"][2, 1]
    np.testing.assert_allclose(moved_by, -0.5 * gradient, rtol=1e-4)


def test_the_moving_average_is_of_the_weights_and_is_evaluated():
    state, update, _ = make(with_statistics, ema=0.5)
    weights = [np.asarray(state.params["out"]["kernel"])]
    for seed in range(4):
        state, _ = update(state, batch_of(12, seed))
        weights.append(np.asarray(state.params["out"]["kernel"]))
    expected = weights[0]
    for step, weight in enumerate(weights[1:]):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    averaged = eval_params(state)
    np.testing.assert_allclose(averaged["out"]["kernel"], expected, rtol=1e-5)
    np.testing.assert_array_equal(
        averaged["norm"]["stats"]["mean"], state.params["norm"]["stats"]["mean"]
    )


def tree(seed):
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = {"kernel": (5, 3), "bias": (3,), "inner": {"scale": (7,)}}
    return jax.tree.map(
        lambda key, shape: jax.random.normal(key, shape),
        {"kernel": keys[0], "bias": keys[1], "inner": {"scale": keys[2]}},
        shapes,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )


@pytest.mark.parametrize("pieces", [2, 3, 4])
def test_accumulation_equals_the_whole_batch(pieces):
    state, update, _ = make(optimizer=optimizers.sgd(0.5, 0.9))
    twin, in_pieces, _ = make(optimizer=optimizers.sgd(0.5, 0.9), accumulate=pieces)
    for seed in range(3):
        state, measured = update(state, batch_of(10, seed))
        twin, measured_in_pieces = in_pieces(twin, batch_of(10, seed))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.params, twin.params
    )
    np.testing.assert_allclose(measured["loss"], measured_in_pieces["loss"], rtol=1e-5)
    assert measured["accuracy"] == measured_in_pieces["accuracy"]


@examples(10)
@given(count=st.integers(1, 12), seed=st.integers(0, 100))
def test_padding_changes_neither_metrics_nor_weights(count, seed):
    padded, alone = batch_of(count, seed), batch_of(count, seed, size=count)
    state, update, evaluate = make()
    measured, _ = evaluate(state.params, padded)
    expected, _ = evaluate(state.params, alone)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(measured[name], expected[name], rtol=1e-6)
    twin = copy(state)
    state, _ = update(state, padded)
    twin, _ = update(twin, alone)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.params, twin.params
    )
