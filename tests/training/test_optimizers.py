"""sgd and adamw against optax's, and the update against what it promises."""

import re

import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.modules import Layers, linear
from tests.helpers.compiled import make_evaluate, make_init
from tests.helpers.project import by_set, examples
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
from training.common.trees import merge, split
from training.engine.step import OptimizerGroup, make_forward
from training.loss import cross_entropy
from utils import UserError


def tree(seed):
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = {"kernel": (5, 3), "bias": (3,), "inner": {"scale": (7,)}}
    return jax.tree.map(
        lambda key, shape: jax.random.normal(key, shape),
        {"kernel": keys[0], "bias": keys[1], "inner": {"scale": keys[2]}},
        shapes,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )


def trajectory(optimizer, steps=20):
    params = tree(0)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for number in range(steps):
        params, state = step(params, state, tree(number + 1))
    return params


SCHEDULE = optax.warmup_cosine_decay_schedule(0.0, 0.1, 5, 20)


@pytest.mark.parametrize("rate", by_set([SCHEDULE], [SCHEDULE, 0.05]))
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda r: optimizers.sgd(r), lambda r: optax.sgd(r)),
        (lambda r: optimizers.sgd(r, 0.9), lambda r: optax.sgd(r, 0.9)),
        (lambda r: optimizers.sgd(r, 0.9, True), lambda r: optax.sgd(r, 0.9, True)),
        (lambda r: optimizers.adamw(r), lambda r: optax.adamw(r)),
        (
            lambda r: optimizers.adamw(r, 0.8, 0.95, 1e-6, 0.1),
            lambda r: optax.adamw(r, 0.8, 0.95, 1e-6, weight_decay=0.1),
        ),
        (
            lambda r: optimizers.adamw(r, weight_decay=0.1, decay_vectors=False),
            lambda r: optax.adamw(
                r, weight_decay=0.1, mask=lambda p: jax.tree.map(lambda leaf: leaf.ndim > 1, p)
            ),
        ),
    ],
    ids=["sgd", "momentum", "nesterov", "adamw", "adamw-arguments", "adamw-matrices"],
)
def test_twenty_updates_equal_optax_to_the_last_bits(ours, theirs, rate):
    ours, theirs = trajectory(ours(rate)), trajectory(theirs(rate))
    for mine, reference in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-6, atol=1e-7)


# The update ------------------------------------------------------------------------------------


def test_a_weight_by_position_masks_positions():
    def each_position(x, *, params=None, key=None, train=False):
        layer = Layers(params, key, train)
        return layer("out", linear, x, 3), layer.params

    random = np.random.default_rng(0)
    batch = {
        "inputs": random.normal(size=(2, 5, 4)).astype(np.float32),
        "targets": random.integers(0, 3, (2, 5)).astype(np.int32),
        "weight": np.array([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], np.float32),
    }
    groups = {"network": OptimizerGroup(cross_entropy, optimizers.sgd(0.1))}
    forward = make_forward(each_position, as_it_is)
    params = make_init(forward, groups)(batch).params
    (total, weight), outputs = (
        make_evaluate(forward, groups, {})(params, batch)[0]["loss"],
        forward(params, batch["inputs"], None, False)[0],
    )
    values = np.asarray(cross_entropy(outputs, batch["targets"]))
    np.testing.assert_allclose(total, values[0, :3].sum() + values[1, 0], rtol=1e-6)
    assert weight == 4


def test_a_schedule_counts_updates_not_pieces():
    rates = []

    def schedule(count):
        return 0.1 * (count + 1)

    group = OptimizerGroup(cross_entropy, optimizers.sgd(schedule), learning_rate=schedule)
    state, update, _ = make(groups={"network": group}, accumulate=3)
    for seed in range(3):
        state, measured = update(state, batch_of(12, seed))
        rates.append(float(measured["learning_rate"][0]))
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3], rtol=1e-6)
    assert state.optimizers["network"]["count"] == 3


def test_accumulation_refuses_a_batch_it_does_not_divide():
    state, update, _ = make(accumulate=5)
    with pytest.raises(UserError, match="accumulate=5 does not divide a batch of 12"):
        update(state, batch_of(12))


def test_a_group_that_trains_nothing_is_refused():
    for paths in [("hiden",), ("out", "hiden"), ("hidden/kernl",), ("hidden", "")]:
        groups = {"head": OptimizerGroup(cross_entropy, optimizers.sgd(0.1), paths)}
        said = f"optimizer_groups.head.params: no part '{paths[-1]}' .*parts are hidden, out"
        with pytest.raises(UserError, match=said):
            make(groups=groups)


def test_a_step_that_is_not_finite_is_not_taken_nor_any_after_it():
    state, update, _ = make()
    state, _ = update(state, batch_of(12))
    before = copy(state)
    broken = batch_of(12)
    broken["inputs"][3, 0] = np.inf
    state, measured = update(state, broken)
    assert not measured["finite"]
    state, measured = update(state, batch_of(12))
    assert not measured["finite"]
    assert same_bits(before.params, state.params)
    assert state.step == before.step == 1


@pytest.mark.parametrize("settings", [{}, {"ema": 0.9, "accumulate": 2}])
def test_a_step_that_is_not_taken_leaves_every_bit_and_costs_no_copy_of_a_large_state(
    settings, monkeypatch
):
    monkeypatch.setattr("training.engine.step.LARGE", 0)  # else it would have to be 64 MiB
    state, update, _ = make(with_statistics, optimizers.adamw(0.1), **settings)
    state, _ = update(state, batch_of(12))
    before, broken = copy(state), batch_of(12)
    broken["inputs"][3, 0] = np.nan
    program = update.lower(state, broken).compile().as_text()
    assert program.count(" conditional(") == 1
    assert not re.search(r"f32\[8,3\]\S* select\(", program)  # of the last layer's kernel
    after, _ = update(state, broken)
    assert same_bits(after._replace(finite=before.finite), before)


def test_the_update_compiles_once_for_whole_and_ragged_batches():
    state, update, evaluate = make()
    for count in (12, 12, 5):
        state, _ = update(state, batch_of(count))
        evaluate(state.params, batch_of(count))
    assert update._cache_size() == 1
    assert evaluate._cache_size() == 1


def test_the_key_changes_with_every_step_and_evaluation_has_none():
    def dropping(x, *, params=None, key=None, train=False):
        return network(x, 0.5, params=params, key=key, train=train)

    state, update, evaluate = make(dropping, optimizers.sgd(0.0))
    losses = set()
    for _ in range(3):
        state, measured = update(state, batch_of(12))
        losses.add(float(measured["loss"][0]))
    assert len(losses) == 3
    first, _ = evaluate(state.params, batch_of(12))
    second, _ = evaluate(state.params, batch_of(12))
    assert first["loss"] == second["loss"]


def test_a_loss_that_averages_by_itself_is_refused_with_the_remedy():
    groups = {
        "network": OptimizerGroup(lambda o, t: cross_entropy(o, t).mean(), optimizers.sgd(0.1))
    }
    state, update, _ = make(groups=groups)
    with pytest.raises(ValueError, match=r"returned shape \(\), expected .* \(12,\)"):
        update(state, batch_of(12))


@examples(30)
@given(
    st.recursive(
        st.integers(0, 9),
        lambda inner: st.dictionaries(st.sampled_from("abc") | st.just("stats"), inner, max_size=3),
        max_leaves=8,
    ),
    st.lists(st.sampled_from(["a", "b/c", "a/b"]), max_size=2),
)
def test_merge_is_the_inverse_of_split(values, experiment):
    chosen, rest = split(values, experiment)
    assert merge(chosen, rest) == values
    assert len(jax.tree.leaves(chosen)) + len(jax.tree.leaves(rest)) == len(jax.tree.leaves(values))
    assert "stats" not in str(jax.tree_util.tree_leaves_with_path(chosen))
