"""How often: one form for everything that is done again and again."""

import math

import pytest

from training.common.every import Every, parse_every
from training.config import read_config
from utils import UserError


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("1 epoch", (1, "epoch")), ("2 epochs", (2, "epoch")), ("500 steps", (500, "step")),
        (" 1 Step ", (1, "step")), ("3.0 steps", (3, "step")), ("10minutes", (10, "minute")),
        ("0.5 minutes", (0.5, "minute")),
    ],
)  # fmt: skip
def test_a_number_and_a_unit_say_how_often(text, every):
    assert parse_every(text) == every
    assert parse_every(str(Every(*every))) == every


def test_a_number_alone_has_the_unit_of_its_key():
    assert parse_every(2, "epoch") == parse_every("2", "epoch") == (2, "epoch")
    assert parse_every(22.0, "step") == (22, "step")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2, "a number and a unit"), ("often", "a number and a unit"), (True, "a number and a unit"),
        ("0 steps", "at least 1"), ("-3 steps", "a number and a unit"), (None, "a number and"),
        ("0.5 epochs", "a part of an epoch is a number of steps"), ("2.5 steps", "a whole number"),
        ("2 hours", "'10 minutes'"), ("1e3 steps", "a number and a unit"), ([], "a number and"),
        ("nan minutes", "a number and a unit"), ("٣ steps", "a number and a unit"),
        ("1 epoch\n2 steps", "a number and a unit"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_was_expected(value, said):
    with pytest.raises(ValueError, match=said):
        parse_every(value)


def test_steps_are_due_at_their_multiples():
    assert [Every(3, "step").next_step(steps) for steps in (0, 2, 3, 4)] == [3, 3, 6, 6]
    assert Every(1, "epoch").next_step(5) == Every(1, "minute").next_step(5) == math.inf


def test_old_keys_and_numbers_keep_their_meaning(config, write_config, caplog):
    del config["training"]["save_every"], config["training"]["log_every"]
    config["training"] |= {"save_period": 2, "log_interval": 7}
    training = read_config(write_config(config)).training
    assert (training.save_every, training.log_every) == ("2 epochs", "7 steps")
    overrides = ["training.save_period=3", "training.log_interval=1", "training.max_steps=9"]
    training = read_config(write_config(config), overrides).training
    assert (training.save_every, training.log_every) == ("3 epochs", "1 step")
    assert "training.save_period is called training.save_every now" in caplog.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"save_period": 2}, "training.save_period: unknown key; here that is training.save_every"),
        ({"save_every": "0.5 epochs"}, "training.save_every: expected a whole number of epochs; a"),
        ({"evaluate_every": 2}, "training.evaluate_every: expected a number and a unit"),
        ({"log_every": "2 epochs"}, "training: expected log_every in steps or minutes"),
        ({"epochs": None}, "training: expected epochs or max_steps, both are null"),
        ({"callbacks": [{"name": "log_weights", "every": "x"}]}, "callbacks.0.every: expected a"),
        ({"callbacks": ["log_weigths"]}, "no callback 'log_weigths' in training/callbacks.py; did"),
        ({"callbacks": [{"name": "log_weights", "ever": 1}]}, "callbacks.0.ever: unknown key"),
    ],
)
def test_what_says_no_such_thing_is_refused_at_its_place(config, write_config, changes, said):
    config["training"] |= changes
    with pytest.raises(UserError) as error:
        read_config(write_config(config))
    assert said in str(error.value)


def test_epochs_are_null_by_default_where_steps_are_given(config, write_config):
    del config["training"]["epochs"]
    assert read_config(write_config(config)).training.epochs == 10
    config["training"]["max_steps"] = 5
    assert read_config(write_config(config)).training.epochs is None
