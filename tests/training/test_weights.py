"""A batch in which everything has the weight 0 changes nothing, and is counted nowhere."""

import numpy as np
import pytest

from tests.helpers.project import by_set
from tests.helpers.updates import (
    assert_nothing_was_measured,
    batch_of,
    copy,
    make,
    same_bits,
    with_statistics,
    without_weight,
)
from training import optimizers

SETTINGS = [({"ema": 0.9, "accumulate": 2}, np.inf), ({}, 0.0), ({}, np.inf), ({"ema": 0.9}, 0.0)]


@pytest.mark.parametrize(("settings", "value"), by_set(SETTINGS[:1], SETTINGS))
def test_an_update_without_weight_changes_no_bit_of_the_state(settings, value):
    state, update, _ = make(with_statistics, optimizers.adamw(0.1), **settings)
    state, _ = update(state, batch_of(12))
    before = copy(state)
    after, measured = update(state, without_weight(value))
    assert same_bits(after, before)
    assert_nothing_was_measured(measured)
    after, measured = update(after, batch_of(12))  # and training goes on
    assert after.step == before.step + 1
    assert measured["finite"]
    assert not same_bits(after.params, before.params)
