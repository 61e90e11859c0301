"""`train.py --profile`: a trace of a few updates, to be opened in Perfetto or TensorBoard.

How the time of each epoch is divided is measured by training/common/timing.py.
"""

import contextlib
import itertools
import logging

from training.common.timing import timed

TRACED_FROM, TRACED_CALLS = 3, 5  # by the fourth call everything is compiled and warm
LOG = logging.getLogger("main")


@contextlib.contextmanager
def profile_updates(experiment, folder, wanted=True):
    """Yields the Experiment; if wanted, its update traces a few calls into `folder`/profile."""
    if not wanted:
        yield experiment
        return
    import jax

    numbers, path = itertools.count(), folder / "profile"
    with contextlib.ExitStack() as trace:

        def update(state, batch):
            number = next(numbers)
            if number == TRACED_FROM:
                with timed("trace"):
                    jax.block_until_ready(state)
                    trace.enter_context(jax.profiler.trace(path, create_perfetto_trace=True))
            with jax.profiler.StepTraceAnnotation("update", step_num=number):
                state, measured = experiment.update(state, batch)
            if number == TRACED_FROM + TRACED_CALLS - 1:
                with timed("trace"):
                    jax.block_until_ready(state)
                    trace.close()
                LOG.info("Trace of %d calls: %s", TRACED_CALLS, max(path.rglob("perfetto*")))
            return state, measured

        yield experiment._replace(update=update)
