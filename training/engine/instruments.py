"""Instruments around the loop: recompilation, profile, leaked tracers. None changes a result."""

import contextlib

import utils
from training.common.timing import STOPWATCH, log_time_breakdown
from training.engine.user_code import catch_leaked_tracers


@contextlib.contextmanager
def instruments(run, profile):
    """Watches a run's functions while it trains; yields what to call at each epoch's end.

    Args:
        run: the Run; its experiment's functions are watched meanwhile.
        profile: trace a few updates into the run folder.
    """
    plain, recompilation = run.experiment, utils.optional_module("training.debug.recompilation")
    if recompilation:
        run.experiment, mark_warm = recompilation.watch_compilations(run.experiment)

    def end_epoch(epoch):
        if profile:
            log_time_breakdown(epoch)
        if recompilation:
            mark_warm()  # update and evaluate have seen every shape there is
        STOPWATCH.restart()

    with contextlib.ExitStack() as stack:
        stack.enter_context(catch_leaked_tracers())
        if profile:
            profiling = utils.optional_module("training.debug.profiling", needed_by="--profile")
            update = profiling.profile_updates(run.experiment, run.folder, bool(run.folder))
            run.experiment = stack.enter_context(update)
        STOPWATCH.restart()
        try:
            yield end_epoch
        finally:
            run.experiment = plain
