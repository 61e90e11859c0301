"""An epoch of training: batches from the loader through the update to the metric logger."""

import logging

import utils
from training.common.errors import NonFiniteError
from training.common.timing import timed
from training.tracking.progress_bar import progress_bar

LOG = logging.getLogger("main")


@timed("dispatch")
def train_epoch(run, logger, stop):
    """Runs the updates of an epoch that are left, or until a signal.

    Args:
        run: the Run; its state and progress move on.
        logger: the MetricLogger.
        stop: the StopSignal.

    Raises:
        UserError: a loss or gradient was not finite.
    """
    experiment, progress = run.experiment, run.progress
    epoch, loader = progress.epochs + 1, experiment.loaders["train"]
    try:
        with progress_bar(loader, epoch, progress.batch) as advance:
            for batch, count in experiment.batches(epoch, progress.batch):
                logger.limit_in_flight()
                if stop.due():
                    break
                run.state, measured = experiment.update(run.state, batch)
                logger.add(measured, count)
                advance(count)
        logger.flush()
    except NonFiniteError as error:
        report_nan(run, epoch, error.batch)


def report_nan(run, epoch, batch):
    """Raises the UserError that says which layer first gave a value that is not finite."""
    debug = utils.optional_module("training.debug.nan")
    if debug:
        debug.report_nan(run.experiment, run.state, epoch, batch, run.folder)
    raise utils.UserError(
        f"epoch {epoch}, batch {batch}: the loss or a gradient is not finite. "
        "training/debug, which would find the layer, is not part of this project"
    )
