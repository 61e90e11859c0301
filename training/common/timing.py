"""How the time of an epoch is divided: a stopwatch, and a mark for the time of a function.

    @timed("evaluation")
    def evaluate(...): ...

Time counts once, for the innermost mark: "device" is the waiting for results within "logging".
"""

import contextlib
import logging
import time

LOG = logging.getLogger("main")
LABELS = {
    "data": "waiting for data",
    "dispatch": "dispatch",
    "device": "waiting for the device",
    "evaluation": "evaluation",
    "callbacks": "callbacks",
    "checkpoint": "checkpoint",
    "logging": "logging",
    "trace": "writing the trace",
    "other": "other",
}


class Stopwatch:
    """Adds up `seconds` by name since the last `restart`; only one name's clock runs at a time."""

    def __init__(self):
        self.restart()

    def restart(self):
        """Sets all clocks to zero and starts that of "other"."""
        self.seconds = dict.fromkeys(LABELS, 0.0)
        self._name, self._since = "other", time.perf_counter()

    def switch(self, name):
        """Stops the running clock, starts that of `name` and returns the stopped one's name."""
        before, now = self._name, time.perf_counter()
        self.seconds[before] += now - self._since
        self._name, self._since = name, now
        return before


STOPWATCH = Stopwatch()  # of the main thread: a process runs one loop


@contextlib.contextmanager
def timed(name):
    """Counts the time within as `name`, a key of LABELS; also a decorator of functions."""
    before = STOPWATCH.switch(name)
    try:
        yield
    finally:
        STOPWATCH.switch(before)


def log_time_breakdown(epoch):
    """Logs how the time of an epoch was divided."""
    total = sum(STOPWATCH.seconds.values())
    shares = ", ".join(
        f"{LABELS[name]} {seconds:.3f} s ({seconds / total:.1%})"
        for name, seconds in STOPWATCH.seconds.items()
        if seconds
    )
    LOG.info("Epoch %d: %s", epoch, shares)
