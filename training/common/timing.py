"""Where the time of an epoch goes: a stopwatch, and marks for what a function's time counts as."""

import contextlib
import logging
import time

LOG = logging.getLogger("main")
LABELS = {
    "data": "waiting for data",
    "dispatch": "dispatch",
    "device": "waiting for the device",
    "evaluation": "evaluation",
    "checkpoint": "checkpoint",
    "logging": "logging",
    "trace": "writing the trace",
    "other": "other",
}


class Stopwatch:
    """Adds up seconds by name; only one name's clock runs at a time.

    Attributes:
        seconds: {name: seconds} since the last `restart`.
    """

    def __init__(self):
        self.restart()

    def restart(self):
        """Sets all clocks to zero and starts that of "other"."""
        self.seconds, self._name, self._since = (
            dict.fromkeys(LABELS, 0.0),
            "other",
            time.perf_counter(),
        )

    def switch(self, name):
        """Stops the running clock, starts another; returns the name of the one that was stopped."""
        before, now = self._name, time.perf_counter()
        self.seconds[before] += now - self._since
        self._name, self._since = name, now
        return before


STOPWATCH = Stopwatch()  # of the main thread, as there is one loop in a process


@contextlib.contextmanager
def timed(name):
    """Within it time counts as spent on `name`, a key of LABELS; decorates functions as well."""
    before = STOPWATCH.switch(name)
    try:
        yield
    finally:
        STOPWATCH.switch(before)


def log_time_breakdown(epoch):
    """Logs what an epoch's time was spent on."""
    total = sum(STOPWATCH.seconds.values())
    shares = ", ".join(
        f"{LABELS[name]} {seconds:.3f} s ({seconds / total:.1%})"
        for name, seconds in STOPWATCH.seconds.items()
        if seconds
    )
    LOG.info("Epoch %d: %s", epoch, shares)
