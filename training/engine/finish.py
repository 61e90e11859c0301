"""The end of a run: the last predictions, the tracked checkpoint, the report."""

import logging

import utils
from training.checkpoint.naming import file_name
from training.engine.evaluation import predict

LOG = logging.getLogger("main")


def finish(run, trackers):
    """Hands the last checkpoint to the trackers and writes report.html.

    Args:
        run: the finished Run.
        trackers: its Trackers.
    """
    _, predictions = predict(run.experiment, run.params)  # by all processes
    if not run.folder:
        return
    trackers.artifact(run.folder / file_name(run.progress.epochs))
    report = write_report(run.config, run.folder, run.experiment, run.params, predictions)
    LOG.info("Finished! Look at %s", report or run.folder)


def write_report(config, folder, experiment, params, predictions):
    """Writes report.html into a run folder; returns its path, or None without training/report."""
    page = utils.optional_module("training.report.page")
    gallery = utils.optional_module("training.report.gallery")
    if not (page and gallery):
        LOG.info("No report: training/report is not part of this project")
        return None
    shown = gallery.collect_gallery(config, experiment, params)
    return page.write_report(folder, predictions=predictions, gallery=shown)
