"""Where the time of an epoch goes, and `train.py --profile`: a trace of a few updates.

`spent` marks what a function's time counts as, wherever that stands in the code. Time counts once,
for the innermost mark: `device` is waiting for results inside of `logging`.
"""

import contextlib
import itertools
import logging
import time

TRACED_FROM, TRACED_CALLS = 3, 5  # by the fourth call everything is compiled and under way
WORDS = {
    "data": "waiting for data",
    "dispatch": "dispatch",
    "device": "waiting for the device",
    "evaluation": "evaluation",
    "checkpoint": "checkpoint",
    "logging": "logging",
    "trace": "writing the trace",
    "other": "other",
}
LOG = logging.getLogger("main")


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
            dict.fromkeys(WORDS, 0.0),
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
def spent(name):
    """Within it time counts as spent on `name`, a key of WORDS; decorates functions as well."""
    before = STOPWATCH.switch(name)
    try:
        yield
    finally:
        STOPWATCH.switch(before)


def log_time(epoch):
    """Logs what an epoch's time was spent on."""
    total = sum(STOPWATCH.seconds.values())
    shares = ", ".join(
        f"{WORDS[name]} {seconds:.3f} s ({seconds / total:.1%})"
        for name, seconds in STOPWATCH.seconds.items()
        if seconds
    )
    LOG.info("Epoch %d: %s", epoch, shares)


@contextlib.contextmanager
def traced(parts, folder, wanted=True):
    """Yields the Parts with an update of whose calls a few are traced, into `folder`/profile."""
    if not wanted:
        yield parts
        return
    import jax

    numbers, path = itertools.count(), folder / "profile"
    with contextlib.ExitStack() as trace:

        def update(state, batch):
            number = next(numbers)
            if number == TRACED_FROM:
                with spent("trace"):
                    jax.block_until_ready(state)
                    trace.enter_context(jax.profiler.trace(path, create_perfetto_trace=True))
            with jax.profiler.StepTraceAnnotation("update", step_num=number):
                state, measured = parts.update(state, batch)
            if number == TRACED_FROM + TRACED_CALLS - 1:
                with spent("trace"):
                    jax.block_until_ready(state)
                    trace.close()
                LOG.info("Trace of %d calls: %s", TRACED_CALLS, max(path.rglob("perfetto*")))
            return state, measured

        yield parts._replace(update=update)
