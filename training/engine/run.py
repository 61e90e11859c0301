"""A run: its config and folder, the experiment it trains, and how far it has come."""

import contextlib
import copy
import logging
import math
from pathlib import Path

import jax
import numpy as np

import utils
from training.checkpoint.naming import file_name, set_aside_after
from training.common.files import atomic_write_text, disk_errors
from training.common.kept_code import keep_code, renew, sign
from training.common.locks import is_locked, lock
from training.common.trees import pick
from training.config import HOMES, write_config
from training.distributed import processes
from training.distributed.devices import log_devices
from training.distributed.sharding import check_devices, replicate
from training.engine.build import build
from training.engine.compilation import (
    compile_predict,
    keep_freed_memory,
    use_compilation_cache,
)
from training.engine.evaluation import evaluate, predict_classes, write_report
from training.engine.fitted import keep_fitted
from training.engine.initialize import (
    FLOAT16,
    count_parameters,
    fresh_state,
    part_lines,
    restored_state,
)
from training.engine.progress import Progress
from training.engine.resume import learning_rates, read_run, report_changes
from training.engine.splits import leakage
from training.engine.step import eval_params
from training.tracking.trackers import check_trackers, with_wandb_id
from utils import UserError

LOG = logging.getLogger("main")


class Run:
    """One run of training, under way or finished.

    Attributes:
        config: its Config.
        folder: its run folder; None in a process that writes nothing.
        experiment: the Experiment it trains.
        state: the TrainState.
        progress: the Progress.
        metrics: {name: number}, the latest, as in metrics.jsonl ("test_accuracy").
        stopped: number of the signal that stopped it, or None.
        stop_reason: that `stop` was given, or None.
    """

    def __init__(self, config, folder, experiment, state, progress):
        self.config, self.folder, self.experiment = config, folder, experiment
        self.state, self.progress = state, progress
        self.metrics = {
            name: math.nan if one is None else one for name, one in progress.metrics.items()
        }
        self.stopped = self.stop_reason = self._predict = self._logger = self._trackers = None

    @property
    def params(self):
        """The parameters to evaluate with; their memory is used again by the next update."""
        return eval_params(self.state)

    @property
    def step(self):
        """The number of updates done."""
        return self.progress.steps

    @property
    def epoch(self):
        """The number of the epoch, from 1: the one that is trained, or the last."""
        return self.progress.position()[0]

    def stop(self, reason="run.stop"):
        """Ends training after the update that is done: evaluates, saves, and writes the report."""
        if self.stop_reason is None:
            self.stop_reason = str(reason)

    def log(self, **numbers):
        """Logs numbers by name, to metrics.jsonl and to every tracker."""
        for name, value in numbers.items():
            array = np.asarray(value)
            if name in ("step", "epoch", "batch"):
                raise UserError(f"run.log: {name} says where a line belongs; give another name")
            if array.ndim or array.dtype.kind not in "biufV":  # V: bfloat16
                raise UserError(f"run.log: {name} is {value!r:.80}; expected a number")
            numbers[name] = int(array) if array.dtype.kind in "biu" else float(array)
        self._while_training("log", self._logger).log_numbers(numbers)

    def log_image(self, name, array):
        """Gives the trackers an image; see `training.tracking.media.as_image`."""
        self._while_training("log_image", self._trackers).image(self.step, name, array)

    def log_text(self, name, text):
        """Gives the trackers a text."""
        self._while_training("log_text", self._trackers).text(self.step, name, text)

    def log_histogram(self, name, values):
        """Gives the trackers the distribution of an array's numbers."""
        trackers = self._while_training("log_histogram", self._trackers)
        trackers.histogram(self.step, name, values)

    def follow(self, logger, trackers):
        """From now on `log` and its like write to these; to None: nowhere."""
        self._logger, self._trackers = logger, trackers

    def _while_training(self, method, place):
        if place is None:
            raise UserError(f"run.{method}: nothing is trained now; it is for callbacks")
        return place

    @property
    def parameters(self):
        """The number of trained parameters of the network."""
        return count_parameters(self.state.params, self.experiment.seeds)

    def save(self, saver, trackers, numbered=True, best=False, sizes=None):
        """Starts to save a checkpoint in the background: the numbered one, the best one or both.

        `sizes` are those of the log's files at its position, by default their present ones.
        """
        if self.folder and saver.is_in_place():
            self._restore_files()
        self.progress.files = sizes or trackers.sizes()
        self.progress.rates = learning_rates(self.experiment, self.progress.steps)
        self.progress.remember_data(self.experiment.loaders["train"])
        name = file_name(*self.progress.position()) if numbered else None
        sums = {} if saver.takes_arrays else None
        saver.save(self.state, self.progress.meta(sums), name, best, sums)

    def _restore_files(self):
        """Writes again what another program removed of the run's own files, and says so."""
        config, lost = self.folder / "config.json", []
        if not is_locked(self.folder):
            lost.append("train.log")
            lock(self.folder)
            utils.set_up_logging(self.folder)
        if not config.exists():
            lost.append(config.name)
            write_config(self.config, config)
        if lost:
            LOG.warning("%s: another program removed or replaced %s; it is written again",
                        self.folder, " and ".join(lost))  # fmt: skip

    @contextlib.contextmanager
    def saved_on_error(self, saver, trackers, logger):
        """Saves what is trained when an error ends an epoch: unreadable data, a failing metric.

        Resumed from there, the run ends as if the error had never been.
        """
        try:
            yield
        except Exception:
            if self._resumable(logger):
                self._save_after_error(saver, trackers, logger.sizes)
            raise

    def _resumable(self, logger):
        """Whether the state after an error is that of the batches done, and there are any."""
        if processes.is_distributed() or not logger.exact:  # others wait for this process
            return False
        try:
            logger.flush()
        except Exception:
            return False
        intact = not any(leaf.is_deleted() for leaf in jax.tree.leaves(self.state))
        return intact and logger.exact and self.progress.position() != (0,)

    def _save_after_error(self, saver, trackers, sizes):
        try:
            self.save(saver, trackers, sizes=sizes)
            saver.wait()
        except Exception as failure:
            LOG.error("What was trained is not saved: %s", failure)
            return
        LOG.warning(
            "An error ends training; all that was trained is saved. Once its cause is removed, "
            "continue with: python train.py --resume %s", self.folder
        )  # fmt: skip

    def save_and_stop(self, saver, trackers, signal, sizes):
        """Saves within an epoch, after a signal; returns the run."""
        self.save(saver, trackers, sizes=sizes)
        self.follow(None, None)
        saver.wait()
        LOG.warning("Stopped; continue with: python train.py --resume %s", self.folder)
        self.stopped = signal
        return self

    def finish(self, trackers):
        """Hands the last checkpoint to the trackers and writes report.html."""
        self.progress.log_end(self.config.training)
        self.follow(None, None)
        predictions = None
        if utils.optional_module("training.report.page"):
            predictions = predict_classes(self.experiment, self.params)  # by all processes
        if self.folder:
            trackers.artifact(self.folder / file_name(*self.progress.position()))
            shown = (self.config, self.folder, self.experiment, self.params, predictions)
            LOG.info("Finished! Look at %s", write_report(*shown) or self.folder)

    def predict(self, inputs):
        """Returns the network's outputs for a batch of inputs, as the data set has them.

        Args:
            inputs: (batch, ...), or a dict of such.

        Returns:
            (batch, ...) NumPy, or a tree of such; of several seeds, those of the first.
        """
        self._predict = self._predict or compile_predict(self.experiment.forward)
        params = self.params if self.experiment.seeds == 1 else pick(self.params, 0)
        return jax.tree.map(np.asarray, replicate(self._predict(params, inputs)))

    def evaluate(self, split="test"):
        """Returns {name: number} of a whole split of the data: "test", "validation"."""
        if split not in self.experiment.loaders:
            known = ", ".join(self.experiment.loaders)
            raise UserError(f"run.evaluate: there is no split {split!r}, only {known}")
        return evaluate(self.experiment, self.params, split)[0]


def new_run(config, source):
    """Makes a new run and its folder; `source` is the config's name, for messages, or its dict."""
    config, source = with_wandb_id(config), "config" if isinstance(source, dict) else source
    name = (config.training.save_dir, config.title, config.wandb.id)
    made = utils.new_run_folder(*name) if processes.is_main() else contextlib.nullcontext()
    with made as folder:
        if folder:
            lock(folder)  # before --resume can find it
            write_config(config, folder / "config.json")
            sign(folder, {}, config.imports)
        progress = Progress()
        experiment = _prepare(config, source, folder, progress)
        config = keep_fitted(config, experiment)
        run = Run(config, folder, experiment, fresh_state(experiment, config), progress)
        _write_origin(run)
    return run


def resumed_run(config, folder, checkpoint):
    """Continues a run in its own folder, with its own config and its own copy of the network.

    Without a checkpoint it was killed before it saved anything, and begins again.
    """
    arrays, progress, before = read_run(config, folder, checkpoint)
    writes, source, was = processes.is_main(), folder / "config.json", copy.copy(progress)
    experiment = _prepare(config, source, folder if writes else None, progress)
    if checkpoint:
        state = restored_state(experiment, arrays, checkpoint)
    else:
        state = fresh_state(experiment, config)
    progress.restore_data(experiment.loaders["train"])
    run = Run(config, folder if writes else None, experiment, state, progress)
    _write_origin(run)
    LOG.info("Resuming from %s", checkpoint or "the beginning: nothing had been saved yet")
    if checkpoint:
        report_changes(was, before, run)
    if writes and (aside := set_aside_after(folder, *progress.position())):
        LOG.warning("The checkpoints that were further in training are now in %s", aside)
    return run


def _prepare(config, source, folder, progress):
    """Sets up logging and JAX, and builds the Experiment of a run; see `build` for `progress`."""
    keep_freed_memory()
    if folder:
        lock(folder)
    utils.set_up_logging(folder, quiet=not processes.is_main())
    LOG.info("Start Training! [%s]", config.title)
    if text := leakage(config.training.monitor):
        LOG.warning("%s", text)
    log_devices(config.devices.count)
    if config.training.compilation_cache:
        use_compilation_cache()
    check_settings(config, source)
    experiment = build(config, source, progress)
    check_devices(config, experiment.loaders["train"].batch_size, source)
    settings, loader = config.training, experiment.loaders["train"]
    steps = progress.total_steps(loader, settings.epochs, settings.max_steps)
    if steps < (settings.max_steps or 0):
        LOG.warning(
            "training.epochs=%d end after %d steps, before training.max_steps=%d; with "
            "training.epochs=null all of these are trained",
            settings.epochs, steps, settings.max_steps,
        )  # fmt: skip
    if processes.is_distributed():
        record = utils.optional_module("training.provenance.record")
        same = record.fingerprint(config, folder or utils.ROOT, experiment) if record else {}
        processes.assert_same(**{"config": config.model_dump(mode="json")} | same)
    LOG.info("Dataloader, Model, Optimizer, Loss function loaded!")
    return experiment


def check_settings(config, source):
    """Checks what a start of training needs besides data and functions, before these are read."""
    if config.training.compute_dtype == "float16":
        raise UserError(f"{source}: training.compute_dtype: {FLOAT16}")
    check_trackers(config, source)


def _write_origin(run):
    """Writes what a run is made from: config, environment and the network's code.

    On resuming, a warning names everything that has changed since.
    """
    LOG.info("The model has %d parameters", run.parameters)
    for line in part_lines(run.experiment, run.state.params):
        LOG.info("%s", line)
    if not run.folder:
        return
    with disk_errors(run.folder):
        write_config(run.config, run.folder / "config.json")
        if not (run.folder / "model").exists():
            network = utils.resolve(run.config.model.name, HOMES["model"])
            keep_code(run.folder, network.__module__, run.config.imports)
        else:
            renew(run.folder, run.config.imports)
        if record := utils.optional_module("training.provenance.record"):
            record.record_provenance(run.config, run.folder, run.experiment, run.parameters)
        title, runs = run.folder.absolute().parent, Path(run.config.training.save_dir).absolute()
        if title.parent == runs:  # not of a sweep
            atomic_write_text(runs / utils.LATEST, f"{title.name}/{run.folder.name}\n")
