"""What a resumed run continues with, and what of it is otherwise than when it was last started."""

import contextlib
import logging

import numpy as np

from training.checkpoint.reading import read
from training.config import read_config
from training.engine.progress import Progress
from utils import UserError

# Arguments of a loader that change neither which examples an epoch has nor their order.
SPEED = ("batch_size", "workers", "worker_kind", "prefetch")
LOG = logging.getLogger("main")


def read_run(config, folder, checkpoint):
    """Reads what a run continues with.

    Args:
        config: its Config.
        folder: its folder; None of a new run.
        checkpoint: the checkpoint to go on from; None where there is none.

    Returns:
        The arrays for `restored_state`, or None; its Progress; and the Config that it was last
        started with.
    """
    if not checkpoint:
        return None, Progress(), config
    arrays, meta = read(checkpoint, for_devices=True)
    progress, before = Progress.from_meta(meta, checkpoint, arrays), config
    with contextlib.suppress(UserError):
        before = read_config(folder / "config.json")
    _check_resumable(config, before, folder)
    _complete(progress, arrays, before)
    if _ending(config) != _ending(before):
        progress.stopped = None
    return arrays, progress, before


def _check_resumable(config, before, folder):
    """Refuses what has no effect on a run that continues with a state of its own."""
    wanted = config.training.checkpoint
    if wanted and wanted != before.training.checkpoint:
        raise UserError(
            f"{folder}: training.checkpoint={wanted.path}: this is for a new run; a resumed one "
            "has weights of its own. Leave out --resume to begin with these"
        )


def _ending(config):
    """What of a config may end a run before all is trained, or after."""
    return config.training.callbacks, config.training.epochs, config.training.max_steps


def _complete(progress, arrays, before):
    """Adds to the Progress of an older version's checkpoint what that did not hold."""
    if not progress.steps and (progress.epochs or progress.batch):
        if isinstance(arrays.get("step"), np.ndarray):
            progress.steps = int(arrays["step"].max())
        args = before.data_loader.train.args
        if isinstance(args, dict) and isinstance(args.get("batch_size"), int):
            progress.batch_size = args["batch_size"]


def learning_rates(experiment, step):
    """Returns {optimizer group: [learning rate of the last update, of the next]}, if finite."""
    rates = {
        name: [_rate(group, max(step - 1, 0)), _rate(group, step)]
        for name, group in experiment.groups.items()
        if group.learning_rate is not None
    }
    return {name: pair for name, pair in rates.items() if np.isfinite(pair).all()}


def report_changes(was, before, run):
    """Logs where a resumed run continues, and whatever of it does not go on as it was.

    Args:
        was: the Progress as it was saved.
        before: the Config that the run was last started with.
        run: the Run.
    """
    progress, settings = run.progress, run.config.training
    loader = run.experiment.loaders["train"]
    if progress.finished(settings):
        LOG.warning("Nothing is left to train: %s", _why_finished(progress, settings))
        return
    _report_position(was, before, run.config, loader, progress)
    for name, rates in learning_rates(run.experiment, progress.steps).items():
        _report_rate(name, was.rates.get(name), rates, run)


def _why_finished(progress, settings):
    done, steps, most = progress.epochs, progress.steps, settings.max_steps
    if progress.stopped is not None:
        return (
            f"a callback stopped the run at step {steps}: {progress.stopped}. With other "
            "training.callbacks, epochs or max_steps it continues"
        )
    if settings.epochs is not None and done >= settings.epochs:
        return f"{done} of {settings.epochs} epochs are done; training.epochs={done + 1} adds one"
    if most is not None and steps >= most:
        return f"{steps} of {most} steps are done; training.max_steps={2 * steps} doubles them"
    return (
        f"{progress.since_best} evaluations were no better than the best; a larger "
        "training.early_stop continues"
    )


def _report_position(was, before, config, loader, progress):
    if was.batch_size not in (0, loader.batch_size):
        LOG.warning(
            "Batches have %d examples from here on, they had %d: an epoch has %d updates",
            loader.batch_size, was.batch_size, len(loader),
        )  # fmt: skip
    if not progress.batch:
        return
    LOG.info(
        "Epoch %d continues after %d of its %d examples",
        progress.epochs + 1, min(progress.examples(), loader.examples), loader.examples,
    )  # fmt: skip
    if _order_of(before) != _order_of(config):
        LOG.warning(
            "The data or their order have changed within epoch %d: some examples come twice in it, "
            "others not at all. Resume from the end of an epoch to have each once",
            progress.epochs + 1,
        )


def _order_of(config):
    """The settings that say which examples an epoch has, in which order."""
    args = config.data_loader.train.args
    named = {key: value for key, value in args.items() if key not in SPEED}
    return named | {"seed": named.get("seed", config.seed)}


def _report_rate(name, was, rates, run):
    """Warns of a learning rate that jumps, or is 0 from here on."""
    rate = run.experiment.groups[name].learning_rate
    (last, planned), (_, following) = was or (None, None), rates
    group = "" if len(run.experiment.groups) == 1 else f" of {name}"
    loader, step = run.experiment.loaders["train"], run.progress.steps
    settings = run.config.training
    steps = run.progress.total_steps(loader, settings.epochs, settings.max_steps)
    if was and not np.isclose(planned, following, rtol=1e-6, atol=0):
        LOG.warning(
            "Learning rate%s %.3g -> %.3g from the last update to the next (as planned before: "
            "%.3g)%s", group, last, following, planned,
            f"; total_steps is {steps} now" if callable(rate) else "",
        )  # fmt: skip
    if callable(rate) and following == 0 == _rate(run.experiment.groups[name], steps - 1):
        LOG.warning(
            "Learning rate%s 0 from here on: nothing more will be learned. Its schedule ends "
            "before update %d; give it more steps, or total_steps", group, step + 1,
        )  # fmt: skip


def _rate(group, step):
    rate = group.learning_rate
    return float(rate(step) if callable(rate) else rate)
