"""An epoch of training: batches from the loader through the update to the metric logger."""

import contextlib
import logging

import jax.numpy as jnp

import utils
from training.common.timing import STOPWATCH, log_time_breakdown, timed
from training.engine.finite import non_finite_field, read_batch
from training.engine.splits import check_numbers, naming
from training.engine.user_code import catch_leaked_tracers
from training.tracking.metric_logger import NonFiniteError
from training.tracking.progress_bar import progress_bar

LOG = logging.getLogger("main")


@timed("dispatch")
def train_epoch(run, logger, stop, schedule=None):
    """Runs the updates of an epoch that are left, and advances the Run.

    Between them it does what a Schedule has. Returns whether the epoch is over: neither a signal
    nor the schedule has ended it before.

    Raises:
        UserError: a loss or gradient was not finite.
    """
    experiment, progress = run.experiment, run.progress
    epoch, loader, over = progress.epochs + 1, experiment.loaders["train"], False
    room = schedule and schedule.room
    try:
        with naming("train"), progress_bar(loader, epoch, progress.examples()) as advance:
            for batch, count in experiment.batches(epoch, progress.batch, room):
                if schedule and progress.steps >= schedule.next and not schedule.handle():
                    break
                logger.limit_in_flight()
                if stop.due():
                    break
                run.state, measured = experiment.update(run.state, batch)
                logger.add(measured, count)
                advance(count, logger.loss)
            else:
                over = True
        logger.flush()
    except TypeError:  # of JAX, for what is no number
        batches = loader.batches(epoch, progress.batch)
        check_numbers(next(batches), "train", loader, epoch, progress.batch)
        raise
    except NonFiniteError as error:
        if experiment.seeds == 1:  # the others of several seeds have trained on
            run.state = run.state._replace(finite=jnp.ones_like(run.state.finite))
            logger.rewind(error.batch)
        report_nan(run, epoch, error.batch)
    return over


def report_nan(run, epoch, batch):
    """Raises the UserError that says which layer first gave a value that is not finite."""
    debug = utils.optional_module("training.debug.nan")
    if debug:
        debug.report_nan(run.experiment, run.state, epoch, batch, run.folder)
    found = non_finite_field(*read_batch(run.experiment, "train", epoch, batch))
    raise utils.UserError(
        f"epoch {epoch}, batch {batch}: the loss or a gradient is not finite. "
        + (found or "training/debug, which would find the layer, is not part of this project")
    )


@contextlib.contextmanager
def instruments(run, profile):
    """Watches a run's functions while it trains, and changes no result: recompilation, profile.

    Yields what to call at the end of each epoch.
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
