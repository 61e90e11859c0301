"""An argument of the wrong type in a config: where, what was got, what is expected, no stack."""

import jax
import jax.numpy as jnp
import pytest

from training.config import Named, OptimizerGroup
from training.engine.optimizer_groups import make_group
from utils import UserError, call

SCHEDULE = {"name": "warmup_cosine", "args": {"peak": 0.1, "total_steps": "total_steps"}}
PARAMS = {"w": jnp.zeros((2, 3))}


def group_of(args, name="adamw"):
    section = OptimizerGroup(loss="cross_entropy", optimizer=Named(name=name, args=args))
    return make_group(section, None, 1.0, 10, "config: training.optimizer").optimizer


def traced(make, *args):
    """Makes an optimizer, and traces it as training does."""
    optimizer = make(*args)
    state = jax.eval_shape(optimizer.init, PARAMS)
    jax.eval_shape(optimizer.update, PARAMS, state, PARAMS)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"learning_rate": 0.1, "weight_decay": "abc"},
         "adamw: weight_decay is 'abc'; expected a number such as 0.0001, without quotes"),
        ({"learning_rate": "0.1"}, "learning_rate: expected a number, or a schedule"),
        ({"learning_rate": None}, 'adamw with {"learning_rate": null} does not work'),
        ({"learning_rate": 0.1, "b1": [0.1]}, "does not work: unsupported operand"),
        ({"learning_rate": 0.1, "weight_decay": {"a": 1}}, "Expected a number where it takes one"),
        ({"learning_rate": {"name": "linear_schedule", "args": {
            "init_value": "a", "end_value": 1, "transition_steps": 3}}}, "the schedule does not"),
        ({"learning_rate": SCHEDULE | {"args": {"peak": [1], "total_steps": 3}}},
         "learning_rate.args: warmup_cosine refused its arguments"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["adamw", "optax:adamw"])
def test_an_optimizer_with_such_an_argument_is_refused_in_one_line(args, words, name):
    if name == "optax:adamw" and "adamw" in words:
        return  # its words are another library's
    with pytest.raises(UserError) as caught:
        traced(group_of, args, name)
    said = str(caught.value)
    assert said.startswith("config: training.optimizer.args")
    assert words in said
    assert "\n" not in said


@pytest.mark.parametrize("args", [{"learning_rate": 1}, {"learning_rate": SCHEDULE}])
def test_numbers_and_schedules_are_taken(args):
    traced(group_of, args)


def function(size, scale=1.0, name="a", kind: int | str = 3, flag=False):
    return size


@pytest.mark.parametrize(
    ("argument", "expected"),
    [({"scale": "2"}, "scale is '2'; expected a number such as 1.0"),
     ({"flag": "yes"}, "flag is 'yes'; expected true or false"),
     ({"name": "b"}, None), ({"kind": "b"}, None), ({"scale": 2}, None), ({"scale": None}, None)],
)  # fmt: skip
def test_a_text_in_place_of_a_number_is_refused_where_nothing_speaks_of_texts(argument, expected):
    if expected is None:
        assert call(function, {"size": 5} | argument, "here") == 5
        return
    with pytest.raises(UserError, match=f"^here: function: {expected}"):
        call(function, {"size": 5} | argument, "here")
