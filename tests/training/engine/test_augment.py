"""Batch transforms in a run: what they are given, their keys, and what is refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.config import read_config
from training.engine.build import build
from training.engine.initialize import first_batch
from training.engine.step import step_key
from utils import UserError


def doubled(x, *, key):
    return 2 * x


def counted(batch, amount=1, *, key):
    """Changes all three at once."""
    return batch | {
        "inputs": batch["inputs"] // 2 + amount,
        "targets": (batch["targets"] + 1) % 10,
        "weight": 0.5 * batch["weight"],
    }


def noisy(batch, *, key):
    return batch | {"inputs": batch["inputs"] + jax.random.normal(key, batch["inputs"].shape)}


def named(*functions):
    return [f"{one.__module__}:{one.__name__}" for one in functions]


def test_transforms_run_in_order_and_may_change_inputs_targets_and_weight(build_with):
    last = {"name": f"{__name__}:counted", "args": {"amount": 7}}
    experiment = build_with([*named(doubled, counted), last])
    batch = first_batch(experiment)
    after = experiment.augment(batch, jax.random.key(3))
    inputs = (batch["inputs"] * 2 // 2 + 1) // 2 + 7
    np.testing.assert_array_equal(after["inputs"], inputs.astype(np.uint8))
    np.testing.assert_array_equal(after["targets"], (batch["targets"] + 2) % 10)
    np.testing.assert_array_equal(after["weight"], batch["weight"] / 4)


def test_a_single_transform_has_the_key_it_always_had_and_each_of_several_its_own(build_with):
    batch = first_batch(build_with(None))
    alone = build_with(named(noisy)).augment(batch, step_key(0, 5))
    key, _ = jax.random.split(step_key(0, 5))
    wanted = batch["inputs"] + jax.random.normal(key, batch["inputs"].shape)
    np.testing.assert_array_equal(alone["inputs"], wanted)
    both = build_with(named(noisy, noisy)).augment(batch, step_key(0, 5))
    for index in range(2):
        own = jax.random.fold_in(key, index)
        wanted = (wanted if index else batch["inputs"]) + jax.random.normal(
            own, batch["inputs"].shape
        )
    np.testing.assert_array_equal(both["inputs"], wanted)


def test_training_measures_the_changed_batch_and_evaluation_the_data_as_they_are(build_with):
    plain, changed = build_with(None), build_with(named(counted))
    batch = first_batch(plain)
    state = plain.init(batch)
    sums, _ = plain.evaluate(state.params, batch)
    same, _ = changed.evaluate(state.params, batch)
    np.testing.assert_array_equal(sums["loss"], same["loss"])
    _, measured = changed.update(state, batch)
    assert float(measured["loss"][1]) == batch["weight"].sum() / 2


# ---- what is refused, by name, before anything is trained ----


def without_key(x):
    return x


def targets_beside(x, y, *, key):
    return x, y


def key_first(key, x):
    return x


def keyword_alone(*, batch, key):
    return batch


def inputs_alone(batch, *, key):
    return batch["inputs"]


def incomplete(batch, *, key):
    return {"inputs": batch["inputs"], "targets": batch["targets"]}


def nothing(x, *, key):
    return None


def fewer(batch, *, key):
    return batch | {"targets": batch["targets"][1:]}


def summed(x, *, key):
    return x.sum()


def other_weight(batch, *, key):
    return batch | {"weight": batch["weight"][:, None]}


def whole_weight(batch, *, key):
    return batch | {"weight": batch["weight"].astype(jnp.int32)}


def unnamed_batch(sample, *, key):
    return sample | {"inputs": sample["inputs"]}


def batch_of_inputs(x, *, key):
    return {"inputs": x, "targets": 0}


WRONG = {
    without_key: "takes no 'key'",
    targets_beside: "nothing gives 'y' a value.*f\\(batch, \\*, key\\)",
    key_first: "takes no 'key' after the first argument",
    keyword_alone: "has no first argument",
    inputs_alone: "returned uint8 .*expected the batch with 'inputs', 'targets' and 'weight'",
    incomplete: r"returned a dict with the keys \['inputs', 'targets'\]",
    nothing: "returned inputs None; expected arrays of the",
    fewer: "returned targets .*expected arrays of the",
    summed: "returned inputs .*expected arrays of the",
    other_weight: r"returned weight float32 \(\d+, 1\), which was float32",
    whole_weight: "returned weight int32",
    unnamed_batch: r"f\(batch, \*, key\)",
    batch_of_inputs: "returned a batch, but was given inputs",
}


@pytest.mark.parametrize("function", WRONG, ids=lambda one: one.__name__)
def test_what_is_no_transform_is_refused_by_name(build_with, function):
    def use():
        experiment = build_with(["random_flip", *named(function)])
        jax.eval_shape(experiment.augment, first_batch(experiment), jax.random.key(0))

    with pytest.raises(UserError, match=WRONG[function]) as caught:
        use()
    assert "data_loader.augment.1" in str(caught.value)
    assert function.__name__ in str(caught.value)


@pytest.mark.parametrize("value", ["mixup", "random_shift"])
def test_what_is_random_is_no_preprocessing(config, write_config, value):
    config["data_loader"]["preprocess"] = value
    with pytest.raises(UserError, match=r"data_loader.preprocess: .*belongs|only training does"):
        build(read_config(write_config(config)))


def test_a_config_of_a_run_writes_one_transform_as_it_always_did(config, write_config):
    for value in (None, [], {"name": "random_shift", "args": {"pixels": 1}}):
        config["data_loader"]["augment"] = value
        assert read_config(write_config(config)).model_dump()["data_loader"]["augment"] == (
            value or None
        )
    config["data_loader"]["augment"] = ["random_flip", {"name": "mixup", "args": {"alpha": 1}}]
    read = read_config(write_config(config), ["data_loader.augment.1.args.alpha=0.5"])
    again = read_config(read.model_dump())
    assert again == read
    assert again.data_loader.augment[1].args == {"alpha": 0.5}
