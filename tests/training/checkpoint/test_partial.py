"""Weights of a checkpoint for a network that is another in parts."""

import jax.numpy as jnp
import numpy as np
import pytest

from training.checkpoint.restore import fitting, restore, restore_state
from utils import UserError

ARRAYS = {
    "stem/kernel": np.ones((3, 4), np.float32), "stem/bias": np.ones(4, np.float32),
    "head/kernel": np.ones((4, 10), np.float32), "head/bias": np.ones(10, np.float32),
}  # fmt: skip


def network(stem="stem", classes=10):
    return {
        stem: {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)},
        "head": {"kernel": jnp.zeros((4, classes)), "bias": jnp.zeros(classes)},
    }


def test_all_that_fits_is_named_and_so_is_what_does_not():
    fit, left = fitting(network(classes=5), ARRAYS, "a")
    assert (fit, left) == (["stem/bias", "stem/kernel"], ["head/bias", "head/kernel"])
    taken = restore(network(classes=5), ARRAYS, partial=fit)
    assert float(taken["stem"]["kernel"].sum()) == 12
    assert float(taken["head"]["kernel"].sum()) == 0


def test_a_checkpoint_of_which_nothing_fits_is_refused():
    with pytest.raises(UserError, match="Nothing of it fits this network"):
        fitting({"other": jnp.zeros(7)}, ARRAYS, "a")


@pytest.mark.parametrize("partial", [None, ["patches"]])
def test_a_renamed_part_is_recognised_by_its_shapes(partial):
    with pytest.raises(UserError, match=r'"rename": \{"stem": "patches"\}'):
        restore(network("patches"), ARRAYS, partial=partial)


def test_a_part_of_other_shapes_is_not_taken_for_a_renamed_one():
    with pytest.raises(UserError) as caught:
        restore(network("patches") | {"patches": {"kernel": jnp.zeros((3, 5))}}, ARRAYS)
    assert "rename" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"optimizers/count": np.int32(1)}, "begin a new run, without --resume, with training.chec"),
     ({"params/w": np.ones(4, np.float32)}, '"partial": true')],
)  # fmt: skip
def test_a_run_that_cannot_go_on_says_how_to_keep_its_weights(changed, words, tmp_path):
    arrays = {"params/w": np.ones(3, np.float32)} | changed
    template = {"params": {"w": jnp.zeros(3)}}
    with pytest.raises(UserError) as caught:
        restore_state(template, arrays, tmp_path / "a.params", None)
    assert words in str(caught.value)
    assert str(tmp_path / "a.params") in str(caught.value).splitlines()[-1]
