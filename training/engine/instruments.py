"""Instruments around the loop: recompilation, profile, leaked tracers; none of them changes a bit."""

import contextlib

import utils
from training.common.timing import STOPWATCH, log_time_breakdown
from training.engine.user_code import catch_leaked_tracers


class Instruments:
    """What the loop tells its instruments.

    Args:
        mark_warm: called after each epoch: update and evaluate have seen every shape there is.
        profile: whether to log where the time of each epoch goes.
    """

    def __init__(self, mark_warm, profile):
        self._mark_warm, self._profile = mark_warm, profile

    def end_epoch(self, epoch):
        """Notes the end of an epoch."""
        if self._profile:
            log_time_breakdown(epoch)
        STOPWATCH.restart()
        self._mark_warm()


@contextlib.contextmanager
def instruments(run, profile):
    """Watches a run's functions while it trains.

    Args:
        run: the Run; its experiment's functions are replaced by watched ones.
        profile: trace a few updates into the run folder.
    """
    mark_warm = lambda: None  # noqa: E731
    if recompilation := utils.optional_module("training.debug.recompilation"):
        run.experiment, mark_warm = recompilation.watched(run.experiment)
    with contextlib.ExitStack() as stack:
        stack.enter_context(catch_leaked_tracers())
        if profile:
            profiling = utils.optional_module("training.debug.profiling", needed_by="--profile")
            update = profiling.profile_updates(run.experiment, run.folder, bool(run.folder))
            run.experiment = stack.enter_context(update)
        STOPWATCH.restart()
        yield Instruments(mark_warm, profile)
