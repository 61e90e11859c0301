"""What the background thread that writes checkpoints leaves to training."""

import threading

from training.common.files import Throttle


def test_a_throttle_pauses_only_for_its_longest_time():
    waits = []

    class Recorded(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)

    def work(throttle):
        throttle.hurry, throttle._since = Recorded(), 0.0  # the last pause was long ago
        throttle.pause()

    work(throttle := Throttle())
    throttle._end -= throttle.LONGEST
    work(throttle)
    first, later = waits
    assert 0 < first <= Throttle.LONGEST
    assert later == 0
