"""From the config to functions: every name resolved, every argument bound to a signature."""

from typing import Any, NamedTuple

import numpy as np

from data_loader.device_cache import cache_on_device
from training.common.measure import SINGLE_GROUP
from training.distributed.sharding import (
    make_mesh,
    shard_functions,
    shard_loaders,
    with_gathered_params,
)
from training.engine.augment import Augment, bind_preprocess, bind_transforms
from training.engine.binding import bind
from training.engine.class_weights import class_weights
from training.engine.compilation import compile_functions
from training.engine.loaders import make_loaders
from training.engine.monitor import check_monitor
from training.engine.optimizer_groups import make_group
from training.engine.outputs import make_output
from training.engine.parts import Parts, parts_of, with_layer_options
from training.engine.progress import Progress
from training.engine.scan import default_steps, device_batches, even_steps, scan_steps, vmap_seeds
from training.engine.step import (
    make_evaluate,
    make_forward,
    make_init,
    make_step,
    step_key,
)
from training.engine.views import average_views, bind_views
from utils import UserError

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
    settings = config.training
    functions = _bind_functions(config, source)  # cheap, so before the data are read
    mesh = make_mesh(config.devices)
    loaders = _loaders_of_devices(config, source, mesh)
    progress = progress or Progress()
    loaders["train"] = progress.continue_with(loaders["train"])
    steps = even_steps(
        len(loaders["train"]), settings.steps_per_call or default_steps(loaders["train"])
    )
    groups = _optimizer_groups(settings, functions.losses, loaders["train"], progress, source)
    classes = getattr(loaders["train"], "classes", None)
    augment = Augment(functions.transforms, None if classes is None else len(classes))
    where = f"{source}: training.class_weights"
    weights = class_weights(settings.class_weights, loaders["train"], where)
    parts = parts_of(settings)
    model = with_layer_options(functions.model, parts)
    forward = make_forward(model, functions.preprocess, settings.compute_dtype)
    metrics = functions.metrics
    init, update, evaluate = _compile(
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
        output=functions.output,
        over_the_epoch=functions.over_the_epoch,
        monitor=settings.monitor,
        reports=functions.reports,
    )
    check_monitor(config, experiment, source)
    return experiment


class _Functions(NamedTuple):
    """What a config names, bound to its arguments; see `Experiment`."""

    model: Any
    preprocess: Any
    transforms: Any
    losses: dict  # {name of an optimizer group: function}
    metrics: dict
    over_the_epoch: dict
    output: Any
    reports: list


def _bind_functions(config, source):
    settings = config.training
    model = bind(config.model, "model", f"{source}: model", 1, ("params", "key", "train"))
    preprocess = bind_preprocess(config.data_loader, source)
    transforms = bind_transforms(config.data_loader, source)
    metrics = _metrics(settings.metrics, source)
    whole = {name: one for name, one in metrics.items() if hasattr(one, "over_the_epoch")}
    output = make_output(config, source)
    reports = [
        (named.name, bind(named, "report", f"{source}: training.report.{index}", 3))
        for index, named in enumerate(settings.report)
    ]
    losses = {
        name: bind(group.loss, "loss", f"{source}: {_place(name)}.loss", 2)
        for name, group in settings.all_groups().items()
    }
    metrics = {name: one for name, one in metrics.items() if name not in whole}
    return _Functions(model, preprocess, transforms, losses, metrics, whole, output, reports)


def _loaders_of_devices(config, source, mesh):
    """The loaders of a config, their data and batches shared among its devices."""
    where = f"{source}: data_loader.cache_on_device"
    cached = config.data_loader.cache_on_device
    loaders = cache_on_device(make_loaders(config, source), cached, mesh, where)
    pieces, batch_size = config.training.accumulate, loaders["train"].batch_size
    if batch_size % pieces:
        raise UserError(
            f"{source}: training.accumulate: {pieces} pieces do not divide a batch of {batch_size}"
        )
    return shard_loaders(loaders, mesh)


def _optimizer_groups(settings, losses, loader, progress, source):
    """{name: OptimizerGroup}, whose schedules know how many updates there are to be."""
    total_steps = progress.total_steps(loader, settings.epochs, settings.max_steps)
    if total_steps >= MOST_STEPS:
        raise UserError(
            f"{source}: training.epochs: {settings.epochs} are {total_steps} updates; expected "
            "fewer than 2**31, as they are counted in 32 bits"
        )
    return {
        name: make_group(
            one,
            losses[name],
            settings.clip_norm,
            total_steps,
            f"{source}: {_place(name)}.optimizer",
        )
        for name, one in settings.all_groups().items()
    }


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


def _compile(forward, groups, metrics, config, steps, mesh, class_weights, augment, views):
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
    functions = shard_functions(init, update, evaluate, mesh)
    return compile_functions(*functions, settings.compiler_options)
