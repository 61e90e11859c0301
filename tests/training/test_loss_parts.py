"""Losses that name their parts, and ask for step, key, params, train or weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import parts
from tests.helpers.project import by_set
from tests.helpers.updates import batch_of, copy, make
from training import optimizers
from training.common.measure import EVALUATED_STEP
from training.engine.step import OptimizerGroup
from training.loss import cross_entropy
from utils import UserError


def group(loss, optimizer=None, *paths):
    return {"network": OptimizerGroup(loss, optimizer or optimizers.sgd(0.1), paths)}


@pytest.mark.parametrize("count", by_set([2], [2, 3, 6]))
def test_pieces_of_a_batch_sum_the_parts_to_those_of_the_whole(count):
    whole, pieces = (make(groups=group(parts.of_parts), accumulate=one) for one in (1, count))
    states, measured = zip(
        *(update(state, batch_of(12)) for state, update, _ in (whole, pieces)), strict=True
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), states[0].params, states[1].params
    )
    for name in ("loss", "right", "size"):
        one, other = (one[name][0] / one[name][1] for one in measured)
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_loss_is_given_what_it_names_and_the_params_are_trained_through_it():
    seen = {}

    def loss(outputs, targets, *, step, key, params, train, weight):
        seen[train] = (step, params.keys(), weight.shape)
        return parts.asking(outputs, targets, step=step, key=key, params=params, train=train,
                            weight=weight)  # fmt: skip

    state, update, evaluate = make(groups=group(loss))
    before = copy(state).params
    plain, plain_update, _ = make(groups=group(cross_entropy))
    state, measured = update(state, batch_of(12))
    plain, _ = plain_update(plain, batch_of(12))
    jax.tree.map(
        lambda new, other, old: np.testing.assert_allclose(new, other - 0.002 * old, atol=1e-6),
        state.params, plain.params, before,
    )  # fmt: skip
    _, again = update(copy(state), batch_of(12))
    assert seen[True][1] == before.keys()
    assert seen[True][2] == (12,)
    assert float(measured["loss"][0]) != float(again["loss"][0])
    values = [float(evaluate(before, batch_of(12))[0]["loss"][0]) for _ in range(2)]
    assert values[0] == values[1]
    assert False in seen


def test_evaluation_gives_a_step_at_which_all_annealing_is_over():
    _, _, evaluate = make(groups=group(lambda o, t, *, step: jnp.zeros(len(t)) + step))
    state, _, _ = make()
    measured, _ = evaluate(state.params, batch_of(12))
    assert float(measured["loss"][0] / measured["loss"][1]) == EVALUATED_STEP


def test_several_groups_have_parts_of_their_own():
    groups = {
        "body": OptimizerGroup(parts.of_parts, optimizers.sgd(0.1), ("hidden",)),
        "head": OptimizerGroup(parts.of_parts, optimizers.sgd(0.1), ("out",)),
    }
    state, update, _ = make(groups=groups)
    _, measured = update(state, batch_of(12))
    wanted = {f"{group}_{name}" for group in groups for name in ("loss", "right", "size")}
    assert wanted <= measured.keys()


def loss_of(name):
    return f"training.loss=tests.helpers.parts:{name}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scalars", ["training.loss: scalars (tests/helpers/parts.py:", "shape () for 'right'"]),
        ("nothing", ["nothing (tests/helpers/parts.py:", "returned {}; expected names"]),
        ("a_pair", ["a_pair (tests/helpers/parts.py:", "returned tuple; expected an array"]),
        ("called_accuracy", ["measures 'accuracy', and so does another; rename one"]),
        ("called_loss", ["has a part 'loss'; expected another name"]),
        ("with_a_default", ["with_a_default(outputs, targets, *, step=0): a loss that names 'step'",
                            "after a *, without a default"]),
        ("by_position", ["by_position(outputs, targets, step): a loss that names 'step'"]),
        ("not_finite", ["epoch 1, batch 3", "optimizer group 'network' (its part wrong) is not"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_loss_is_said_with_its_line(fit_labelled, name, words):
    with pytest.raises(UserError) as error:
        fit_labelled(overrides=[loss_of(name)])
    assert all(one in str(error.value) for one in words), error.value


@pytest.mark.parametrize(
    "setting",
    by_set(
        ["training.steps_per_call=2"],
        ["training.steps_per_call=2", "training.seeds=2", "training.ema=0.9",
         "training.class_weights=[1,2,3]", "training.accumulate=2"],
    ),
)  # fmt: skip
def test_a_part_is_logged_and_chosen_by_whatever_the_setting(fit_labelled, setting):
    run = fit_labelled(overrides=[loss_of("of_parts"), "training.monitor=min test_size", setting])
    assert {"epoch_train_right", "test_right", "test_size"} <= run.metrics.keys()
    assert run.metrics["test_loss"] == pytest.approx(
        run.metrics["test_right"] + run.metrics["test_size"], rel=1e-5
    )
    assert (run.folder / "checkpoint-best.params").exists()


def test_a_monitored_part_that_is_not_there_is_refused_with_the_nearest(fit_labelled, tmp_path):
    with pytest.raises(UserError, match=r"no 'test_sise' is measured; did you mean 'test_size'\?"):
        fit_labelled(overrides=[loss_of("of_parts"), "training.monitor=min test_sise"])
    assert not list(tmp_path.glob("saved/*/*"))
