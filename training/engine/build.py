"""From the config to functions: every name resolved, every argument bound to a signature."""

import contextlib
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np

from data_loader.device_cache import cache_on_device
from training.common.measure import SINGLE_GROUP, loss_name, named_numbers
from training.config import HOMES
from training.distributed.sharding import (
    make_mesh,
    shard_functions,
    shard_loaders,
    with_gathered_params,
)
from training.engine.augment import Augment, bind_preprocess, bind_transforms
from training.engine.binding import bind, construct, parameters_of
from training.engine.class_weights import class_weights
from training.engine.compilation import compile_functions
from training.engine.fitted import with_fitted
from training.engine.optimizer_groups import make_group
from training.engine.outputs import make_output
from training.engine.parts import Parts, parts_of, with_layer_options
from training.engine.progress import Progress
from training.engine.scan import default_steps, device_batches, even_steps, scan_steps, vmap_seeds
from training.engine.splits import stored_batch
from training.engine.step import (
    eval_params,
    make_evaluate,
    make_forward,
    make_init,
    make_step,
    step_key,
)
from training.engine.user_code import explained
from training.engine.views import average_views, bind_views
from utils import UserError, call, nearest, resolve

MOST_STEPS = 2**31


class Experiment(NamedTuple):
    """Everything a run is made of: data, functions, and how they are computed."""

    loaders: dict  # {"train": loader, "validation": loader where there is a split, "test": loader}
    groups: dict  # {name: OptimizerGroup}
    metrics: dict  # {name: function} of a batch
    step_key: Any  # (step, copy=0) -> key of that update, of the network with seed + copy
    mesh: Any  # of the devices, None for a single one
    augment: Any  # (batch, key of the update) -> batch, in training only
    forward: Any  # (params, inputs, key, train) -> (outputs, params)
    init: Any  # (batch) -> TrainState, jitted
    update: Any  # (state, batch) -> (state, measured), jitted
    evaluate: Any  # (params, batch) -> (measured, outputs), jitted
    batches: Any  # (epoch, start) -> iterator of (what update takes, number of batches in it)
    steps_per_call: int  # batches update takes at once; if several, what it measures has that axis
    seeds: int  # networks trained at once; if several, all arrays of the state have that axis
    aggregates: dict  # {name: (sum, weight) -> result} of everything measured that is not a mean
    class_weights: Any = None  # (classes,) weights of training; None: all classes count alike
    output: Any = None  # Output: what the network's outputs are
    over_the_epoch: Any = None  # {name: (outputs, targets) -> {name: number}} of a whole split
    monitor: str | None = None  # "min NAME" or "max NAME"
    parts: Parts = Parts()  # of the network that are frozen, learn at another rate, ...
    reports: Any = ()  # (name, function) of training.report


def build(config, source="config.json", progress=None, views=()):
    """Returns the Experiment of a checked Config.

    Args:
        config: the Config.
        source: its name, for messages.
        progress: of the run that is resumed: its schedules and its epoch go on from there.
        views: names of those that evaluation averages over: see training/engine/views.py.

    Raises:
        UserError: a name or an argument does not fit, or the data cannot be read.
    """
    source = "config" if isinstance(source, dict) else source
    # Everything cheap is checked before the data are read.
    settings = config.training
    model = bind(config.model, "model", f"{source}: model", 1, ("params", "key", "train"))
    preprocess = bind_preprocess(config.data_loader, source)
    transforms = bind_transforms(config.data_loader, source)
    metrics = _metrics(settings.metrics, source)
    whole = {name: one for name, one in metrics.items() if hasattr(one, "over_the_epoch")}
    metrics = {name: one for name, one in metrics.items() if name not in whole}
    output = make_output(config, source)
    reports = [
        (named.name, bind(named, "report", f"{source}: training.report.{index}", 3))
        for index, named in enumerate(settings.report)
    ]
    losses = {
        name: bind(group.loss, "loss", f"{source}: {_place(name)}.loss", 2)
        for name, group in settings.all_groups().items()
    }
    mesh = make_mesh(config.devices)
    where = f"{source}: data_loader.cache_on_device"
    cached = config.data_loader.cache_on_device
    loaders = cache_on_device(make_loaders(config, source), cached, mesh, where)
    pieces, batch_size = settings.accumulate, loaders["train"].batch_size
    if batch_size % pieces:
        raise UserError(
            f"{source}: training.accumulate: {pieces} pieces do not divide a batch of {batch_size}"
        )
    loaders = shard_loaders(loaders, mesh)
    progress = progress or Progress()
    loaders["train"] = progress.continue_with(loaders["train"])
    total_steps = progress.total_steps(loaders["train"], settings.epochs, settings.max_steps)
    if total_steps >= MOST_STEPS:
        raise UserError(
            f"{source}: training.epochs: {settings.epochs} are {total_steps} updates; expected "
            "fewer than 2**31, as they are counted in 32 bits"
        )
    groups = {
        name: make_group(
            one,
            losses[name],
            settings.clip_norm,
            total_steps,
            f"{source}: {_place(name)}.optimizer",
        )
        for name, one in settings.all_groups().items()
    }
    parts = parts_of(settings)
    forward = make_forward(with_layer_options(model, parts), preprocess, settings.compute_dtype)
    classes = getattr(loaders["train"], "classes", None)
    augment = Augment(transforms, None if classes is None else len(classes))
    wanted = settings.steps_per_call or default_steps(loaders["train"])
    steps = even_steps(len(loaders["train"]), wanted)
    where = f"{source}: training.class_weights"
    weights = class_weights(settings.class_weights, loaders["train"], where)
    init, update, evaluate = _functions(
        forward, groups, metrics, config, steps, mesh, weights, augment,
        bind_views(views, config.imports),
    )  # fmt: skip

    experiment = Experiment(
        loaders=loaders,
        groups=groups,
        metrics=metrics,
        step_key=lambda step, copy=0: step_key(config.seed + copy, step),
        mesh=mesh,
        augment=augment,
        forward=forward,
        init=init,
        update=update,
        evaluate=evaluate,
        batches=device_batches(loaders["train"], steps, mesh),
        steps_per_call=steps,
        seeds=settings.seeds,
        aggregates={name: one.compute for name, one in metrics.items() if hasattr(one, "compute")},
        parts=parts,
        class_weights=weights,
        output=output,
        over_the_epoch=whole,
        monitor=settings.monitor,
        reports=reports,
    )
    check_monitor(config, experiment, source)
    return experiment


def check_monitor(config, experiment, source):
    """Refuses a training.monitor that is not measured.

    Names that only a metric's result has are compared after the first evaluation.
    """
    if config.training.monitor is None:
        if config.training.early_stop is not None:
            raise UserError(
                f"{source}: training.early_stop needs training.monitor, what is to get better: "
                "'min validation_loss', with data_loader.train.args.validation_split=0.1"
            )
        return
    sense, _, name = config.training.monitor.partition(" ")
    where = f"{source}: training.monitor"
    if sense not in ("min", "max"):
        got = config.training.monitor
        raise UserError(f"{where}: expected 'min NAME' or 'max NAME', got {got!r}")
    losses = [loss_name(group) for group in experiment.groups]
    numbers = losses + [metric for metric in experiment.metrics if metric != "confusion_matrix"]
    splits = ["epoch_train", *(split for split in experiment.loaders if split != "train")]
    if name in [f"{split}_{number}" for split in splits for number in numbers]:
        return
    if name in [f"{split}_{one}" for split in splits[1:] for one in experiment.over_the_epoch]:
        return
    numbers, complete = _measured_names(experiment)
    known = [f"{split}_{number}" for split in splits for number in numbers]
    if name not in known and (complete or not name.startswith(tuple(splits))):
        hint = nearest(name, known)
        raise UserError(f"{where}: no {name!r} is measured{hint}; there are {', '.join(known)}")


def _measured_names(experiment):
    """Returns the names of the numbers that are measured, and whether there can be no others."""
    batch = stored_batch(experiment)
    with explained():
        state = jax.eval_shape(experiment.init, batch)
        measured, _ = jax.eval_shape(experiment.evaluate, eval_params(state), batch)
    measured.pop("finite")
    names, complete = list(experiment.over_the_epoch), not experiment.over_the_epoch
    for name, (total, _) in measured.items():
        compute = experiment.aggregates.get(name)
        if compute is None:
            names.append(name)
            continue
        shape = getattr(total, "table", np.shape(total)[int(experiment.seeds > 1) :])
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
                result = named_numbers(name, compute(np.zeros(shape), 0.0))
            names += [key for key, one in result.items() if np.ndim(one) == 0]
        except Exception:  # of nothing it has no result
            complete = False
    return names, complete


def _place(group):
    """The place of an optimizer group in the config."""
    return "training" if group == SINGLE_GROUP else f"training.optimizer_groups.{group}"


def _metrics(wanted, source):
    """{name: function}; a metric that is named more than once has its arguments in the name."""
    metrics = {}
    for index, named in enumerate(wanted):
        name = named.name.rpartition(":")[2]
        if [one.name for one in wanted].count(named.name) > 1:
            name += "(" + ", ".join(f"{key}={value}" for key, value in named.args.items()) + ")"
        metrics[name] = bind(named, "metric", f"{source}: training.metrics.{index}", 2)
    return metrics


def make_loaders(config, source):
    """Returns {split: loader} of a config: "train", "validation" where one is held out, "test"."""
    loaders = {}
    for split in ("train", "validation", "test"):
        named = getattr(config.data_loader, split)
        if named is None:
            continue
        where = f"{source}: data_loader.{split}"
        loader = resolve(named.name, HOMES["data_loader"], f"{where}.name")
        args = with_fitted(named.args, loaders, f"{where}.args")
        args = construct(args, "data_loader", f"{where}.args")
        if not isinstance(args, dict):
            raise UserError(f"{where}.args: expected an object with argument names, got a list")
        if "seed" in parameters_of(loader) and "seed" not in args:
            args["seed"] = config.seed
        if takes_stratify := "stratify" in parameters_of(loader):
            args = {"stratify": config.data_loader.stratify} | args
        with _with_share(named.args, where):
            loaders[split] = call(loader, args, f"{where}.args")
        if split != "train" and loaders[split].validation() is not None:
            raise UserError(
                f"{where}.args: validation_split and folds hold out a part of the training data; "
                f"expected them in data_loader.train alone, or the {split} set is not evaluated "
                "as a whole"
            )
        if not (takes_stratify or config.data_loader.stratify) and split == "train":
            loaders[split].hold_out(stratify=False)
        if split != "train" and not getattr(loaders[split], "reads_everything", True):
            raise UserError(
                f"{where}.args: with sampler, examples_per_epoch or drop_last not every example of "
                f"the {split} set counts once; they are for data_loader.train"
            )
    held_out = loaders["train"].validation()
    if held_out is not None:
        if "validation" in loaders:
            raise UserError(
                f"{source}: data_loader.train.args: a validation_split or fold is held out, and "
                "there is data_loader.validation as well; expected one of the two"
            )
        loaders = {"train": loaders["train"], "validation": held_out, "test": loaders["test"]}
    for split, loader in loaders.items():
        loader.split = split  # for messages about its data
    return loaders


@contextlib.contextmanager
def _with_share(args, where):
    """Names the split, and the share of the data that it has, in the errors of its loader."""
    try:
        yield
    except UserError as error:
        if str(error).startswith(where):
            raise
        dataset = args.get("dataset") if isinstance(args, dict) else None
        of_dataset = dataset.get("args") if isinstance(dataset, dict) else None
        share = of_dataset.get("share") if isinstance(of_dataset, dict) else None
        raise UserError(f"{where}{f', share {share}' if share else ''}: {error}") from error


def _functions(forward, groups, metrics, config, steps, mesh, class_weights, augment, views):
    """Composes init, update and evaluate of plain functions, and compiles them, once."""
    settings, forward = config.training, with_gathered_params(forward, mesh)
    parts = parts_of(settings)

    def init_of(seed):
        return make_init(forward, groups, seed, settings.ema, parts.freeze)

    def step_of(seed):
        around = (settings.accumulate, settings.ema, class_weights, parts, augment)
        return make_step(forward, groups, metrics, seed, *around)

    init, update = init_of(config.seed), step_of(config.seed)
    evaluate = make_evaluate(average_views(forward, views), groups, metrics)
    if settings.seeds > 1:
        seeds = np.arange(config.seed, config.seed + settings.seeds, dtype=np.uint32)
        init, update, evaluate = vmap_seeds(init_of, step_of, evaluate, seeds)
    if steps > 1:
        update = scan_steps(update, steps)
    return compile_functions(*shard_functions(init, update, evaluate, mesh))
