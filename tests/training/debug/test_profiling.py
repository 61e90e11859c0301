"""How --profile divides the time of an epoch, and the warning of a second compilation."""

import time

import pytest

from training.common.timing import STOPWATCH, timed


def test_time_counts_once_for_the_innermost_mark():
    @timed("evaluation")
    def evaluate():
        time.sleep(0.02)

    STOPWATCH.restart()
    began = time.perf_counter()
    with timed("logging"):
        time.sleep(0.04)
        evaluate()
        evaluate()
    with pytest.raises(KeyError), timed("data"):
        {}["missing"]
    STOPWATCH.switch("other")
    total, seconds = time.perf_counter() - began, STOPWATCH.seconds
    assert sum(seconds.values()) == pytest.approx(total, abs=1e-3)
    assert 0.04 <= seconds["evaluation"] <= total - seconds["logging"]
    assert seconds["logging"] >= 0.04
    assert seconds["device"] == 0
