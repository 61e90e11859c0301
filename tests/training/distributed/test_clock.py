"""Minutes: few looks at the clock, none late, however long steps take."""

import numpy as np
import pytest

from training.distributed import clock


class Time:
    """A clock that a test sets forward."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        """Returns the seconds so far."""
        return self.now


@pytest.mark.parametrize("first", [1e-4, 30.0])  # before the device is waited for; compilation
@pytest.mark.parametrize("seconds", [0.01, 0.3, 20.0])
def test_a_period_ends_after_so_many_minutes_and_is_looked_at_seldom(monkeypatch, first, seconds):
    time, random = Time(), np.random.default_rng(0)
    monkeypatch.setattr(clock, "time", time)
    watch, looks, ends, began = clock.Clock({"save": 10, "other": 700}, 3), 0, [], 0.0
    for step, took in enumerate(random.uniform(0.8, 1.2, int(4000 / seconds)), 4):
        time.now += first if step < 12 else seconds * took
        if step < watch.next:
            assert watch.due(step) == set()
            continue
        looks += 1
        if "save" in watch.due(step):
            ends.append(time.now - began)
            began = time.now
    assert len(ends) >= 5
    assert min(ends) >= 600
    assert max(ends) <= 600 + 3 * max(seconds, first)
    assert looks <= 45 * len(ends)  # it doubles its steps, and halves them


def test_without_periods_there_is_no_look():
    assert clock.Clock({}, 0).next == float("inf")
