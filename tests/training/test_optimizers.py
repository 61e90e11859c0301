"""sgd and adamw against optax's, and the update against what it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.model import mnist_model, vit
from model.modules import Layers, batch_norm, dropout, linear
from tests.helpers.compiled import make_evaluate, make_init, make_update
from tests.helpers.project import by_set, examples
from training import optimizers
from training.common.trees import merge, split
from training.engine import step as steps
from training.engine.step import OptimizerGroup, eval_params, make_forward
from training.loss import cross_entropy, mean_squared_error
from training.metrics import accuracy
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


def same_bits(first, second):
    return all(
        np.array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
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


@pytest.mark.parametrize("rate", [0.05, SCHEDULE], ids=["constant", "schedule"])
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


def network(x, rate=0.0, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    y = jax.nn.relu(layer("hidden", linear, x, 8))
    y = layer("drop", dropout, y, rate)
    return layer("out", linear, y, 3), layer.params


def with_statistics(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    y = layer("norm", batch_norm, layer("hidden", linear, x, 8))
    return layer("out", linear, jax.nn.relu(y), 3), layer.params


def as_it_is(inputs, key, train):
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


@pytest.mark.parametrize("pieces", by_set([3], [2, 3, 4]))
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


def test_a_group_that_trains_nothing_is_refused():
    groups = {"head": OptimizerGroup(cross_entropy, optimizers.sgd(0.1), ("haed",))}
    with pytest.raises(
        UserError, match=r"optimizer_groups.head.params: \['haed'\].*\['hidden', 'out'\]"
    ):
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
