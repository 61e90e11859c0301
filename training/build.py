"""From the config to functions: every name resolved, every argument bound to a signature."""

import inspect
import math
from functools import partial
from typing import Any, NamedTuple

import optax

from training.calls import deal, even_steps, several
from training.config import HOMES, is_named
from training.copies import make_copies, seeds_of
from training.devices import make_mesh, put_batch, share, spread, with_whole_params
from training.guard import guarded
from training.optimizers import (
    SINGLE_RULE,
    Rule,
    loss_name,
    make_evaluate,
    make_forward,
    make_init,
    make_update,
    step_key,
)
from training.resident import reside
from utils import UserError, call, check_arguments, nearest, resolve


class Parts(NamedTuple):
    """What a run is made of."""

    loaders: dict  # {"train": loader, "validation": loader where there is a split, "test": loader}
    rules: dict  # {name: Rule}
    metrics: dict  # {name: function}
    step_key: Any  # (step, copy=0) -> key of that update
    mesh: Any  # of the devices, None for a single one
    forward: Any  # (params, inputs, key, train) -> (outputs, params)
    init: Any  # (batch) -> TrainState, jitted
    update: Any  # (state, batch) -> (state, measured), jitted
    evaluate: Any  # (params, batch) -> (measured, outputs), jitted
    calls: Any  # (epoch, start) -> iterator of (what update takes for a batch, number of batches)
    steps_per_call: int  # batches update takes at once; if several, what it measures has that axis
    copies: int  # networks trained at once; if several, all arrays of the state have that axis
    finish: dict  # {name: (sum, weight) -> result} of everything measured that is not a mean


def build(config, source="config.json"):
    """Returns the Parts of a config.

    Args:
        config: a checked Config.
        source: its name, for messages.

    Raises:
        UserError: a name or an argument does not fit, or the data cannot be read.
    """
    # Everything cheap is checked before the data are read.
    model = bind(config.model, "model", f"{source}: model", 1, ("params", "key", "train"))
    prepare = _prepare(config.data_loader, source)
    metrics = _metrics(config.training.metrics, source)
    losses = {
        name: bind(rule.loss, "loss", f"{source}: {_place(name)}.loss", 2)
        for name, rule in config.training.all_rules().items()
    }
    mesh = make_mesh(config.devices)
    loaders = _loaders(config, mesh, source)
    check_monitor(config, metrics, loaders, source)
    pieces, batch_size = config.training.accumulate, loaders["train"].batch_size
    if batch_size % pieces:
        raise UserError(
            f"{source}: training.accumulate: {pieces} pieces do not divide a batch of {batch_size}"
        )
    loaders = share(loaders, mesh)
    total_steps = len(loaders["train"]) * config.training.epochs
    rules = {
        name: _rule(rule, losses[name], config, total_steps, f"{source}: {_place(name)}.optimizer")
        for name, rule in config.training.all_rules().items()
    }
    forward = make_forward(model, prepare, config.training.compute_dtype)
    init, update, evaluate = _functions(with_whole_params(forward, mesh), rules, metrics, config)
    steps = even_steps(len(loaders["train"]), config.training.steps_per_call)
    update = update if steps == 1 else several(update, steps)
    init, update, evaluate = spread(init, update, evaluate, mesh)

    def calls(epoch, start=0):
        for batches, count in deal(loaders["train"].batches(epoch, start), steps):
            yield put_batch(batches, mesh, axis=int(steps > 1)), count

    return Parts(
        loaders=loaders,
        rules=rules,
        metrics=metrics,
        step_key=lambda step, copy=0: step_key(config.seed + copy, step),
        mesh=mesh,
        forward=forward,
        init=init,
        update=update,
        evaluate=evaluate,
        calls=calls,
        steps_per_call=steps,
        copies=config.training.seeds,
        finish={name: one.finish for name, one in metrics.items() if hasattr(one, "finish")},
    )


def bind(named, kind, where, positional, keywords=()):
    """Returns the named function with its arguments from the config bound to it.

    Args:
        named: name and args.
        kind: where to look it up, a key of HOMES.
        where: its place in the config.
        positional: how many arguments the framework hands over by position.
        keywords: names of those that it hands over by name.
    """
    function = resolve(named.name, HOMES[kind], f"{where}.name")
    args = construct(named.args, kind, f"{where}.args")
    if not isinstance(args, dict):
        raise UserError(f"{where}.args: expected an object with argument names, got a list")
    _check_keywords(function, keywords, f"{where}.name")
    taken = (*_parameters(function)[:positional], *keywords)
    check_arguments(function, args, f"{where}.args", taken)
    bound = guarded(partial(function, **args), named.name.rpartition(":")[2], kind, where)
    if hasattr(function, "finish"):
        bound.finish = function.finish
    return bound


def construct(value, kind, where):
    """Returns an argument from the config with every {"name": ...} in it replaced.

    With "args" the function is called and its result stands there, as for a learning rate's
    schedule; without "args" the function itself does.
    """
    if is_named(value):
        function = resolve(value["name"], HOMES[kind], f"{where}.name")
        if "args" not in value:
            return function
        args = construct(value["args"], kind, f"{where}.args")
        return call(function, args, f"{where}.args")
    if isinstance(value, dict):
        return {key: construct(one, kind, f"{where}.{key}") for key, one in value.items()}
    if isinstance(value, list):
        return [construct(one, kind, f"{where}.{index}") for index, one in enumerate(value)]
    return value


def check_monitor(config, metrics, loaders, source):
    """Refuses a training.monitor that no epoch will bring."""
    sense, _, name = config.training.monitor.partition(" ")
    losses = [loss_name(rule) for rule in config.training.all_rules()]
    numbers = losses + [metric for metric in metrics if metric != "confusion_matrix"]
    splits = ["epoch_train", *(split for split in loaders if split != "train")]
    known = [f"{split}_{number}" for split in splits for number in numbers]
    where = f"{source}: training.monitor"
    if sense not in ("min", "max"):
        got = config.training.monitor
        raise UserError(f"{where}: expected 'min NAME' or 'max NAME', got {got!r}")
    if name not in known:
        hint = nearest(name, known)
        raise UserError(f"{where}: no {name!r} is measured{hint}; there are {', '.join(known)}")


def _check_keywords(function, keywords, where):
    """Refuses a function without a keyword that it is to be called with."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # some built-in functions tell nothing
        return
    missing = [name for name in keywords if name not in parameters]
    if missing and not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        name, wanted = getattr(function, "__name__", str(function)), ", ".join(keywords)
        raise UserError(
            f"{where}: {name} takes no {missing[0]!r}; it is called with {wanted} by name, "
            "so write them at the end of its arguments, behind a *"
        )


def _place(rule):
    return "training" if rule == SINGLE_RULE else f"training.rules.{rule}"


def _metrics(wanted, source):
    """{name: function}; a metric that is named more than once has its arguments in the name."""
    metrics = {}
    for index, named in enumerate(wanted):
        name = named.name.rpartition(":")[2]
        if [one.name for one in wanted].count(named.name) > 1:
            name += "(" + ", ".join(f"{key}={value}" for key, value in named.args.items()) + ")"
        metrics[name] = bind(named, "metric", f"{source}: training.metrics.{index}", 2)
    return metrics


def _parameters(function):
    """The names of a function's parameters, as far as Python knows them."""
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:
        return []


def _loaders(config, mesh, source):
    loaders = {}
    for split in ("train", "test"):
        named = getattr(config.data_loader, split)
        where = f"{source}: data_loader.{split}"
        loader = resolve(named.name, HOMES["data_loader"], f"{where}.name")
        args = construct(named.args, "data_loader", f"{where}.args")
        if not isinstance(args, dict):
            raise UserError(f"{where}.args: expected an object with argument names, got a list")
        if "seed" in _parameters(loader) and "seed" not in args:
            args["seed"] = config.seed
        loaders[split] = call(loader, args, f"{where}.args")
    validation = loaders["train"].validation()
    held_out = {} if validation is None else {"validation": validation}
    loaders = {"train": loaders["train"], **held_out, "test": loaders["test"]}
    where = f"{source}: data_loader.device_resident"
    return reside(loaders, config.data_loader.device_resident, mesh, where)


def _functions(forward, rules, metrics, config):
    """Returns init, update and evaluate, jitted: of one network, or of all its copies."""
    settings = config.training

    def init_of(seed):
        return make_init(forward, rules, seed, settings.ema)

    def update_of(seed):
        return make_update(forward, rules, metrics, seed, settings.accumulate, settings.ema)

    evaluate = make_evaluate(forward, rules, metrics)
    if settings.seeds > 1:
        return make_copies(init_of, update_of, evaluate, seeds_of(config))
    return init_of(config.seed), update_of(config.seed), evaluate


def _prepare(loaders, source):
    """Returns `(inputs, key, train) -> inputs`: augmentation in training, then preprocessing."""
    augment, preprocess = None, None
    if loaders.augment:
        where = f"{source}: data_loader.augment"
        augment = bind(loaders.augment, "transform", where, 1, ("key",))
    if loaders.preprocess:
        where = f"{source}: data_loader.preprocess"
        preprocess = bind(loaders.preprocess, "transform", where, 1)

    def prepare(inputs, key, train):
        if train and augment:
            inputs = augment(inputs, key=key)
        return preprocess(inputs) if preprocess else inputs

    return prepare


def _rule(rule, loss, config, total_steps, where):
    """Returns the Rule with its optimizer made; "total_steps" in its arguments is filled in."""
    function = resolve(rule.optimizer.name, HOMES["optimizer"], f"{where}.name")
    args = _fill(rule.optimizer.args, "total_steps", total_steps)
    args = construct(args, "optimizer", f"{where}.args")
    optimizer = call(function, args, f"{where}.args")
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise UserError(
            f"{where}.name: {rule.optimizer.name!r} makes no optimizer: expected init "
            "and update, as optax's have"
        )
    if config.training.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(config.training.clip_norm), optimizer)
    rates = _learning_rates(function, _fill(rule.optimizer.args, "total_steps", total_steps), where)
    for spot, rate in rates:
        number = isinstance(rate, int | float) and math.isfinite(rate)
        if rate is not None and not callable(rate) and not number:
            raise UserError(
                f"{spot}: expected a number, or a schedule as "
                f'{{"name": ..., "args": ...}}, got {rate!r}'
            )
    rate = rates[0][1] if len(rates) == 1 else None  # of several, none is the learning rate
    return Rule(loss, optimizer, tuple(rule.trains), rate)


def _learning_rates(function, args, where):
    """(place in the config, number or schedule) of each learning rate: in a chain there may be any.

    What stands deeper, inside of other wrappers, may count its updates otherwise.
    """
    if function is optax.chain and isinstance(args, list):
        links = [(index, one) for index, one in enumerate(args) if is_named(one)]
        return [
            rate
            for index, one in links
            for rate in _learning_rates(
                resolve(one["name"], HOMES["optimizer"], f"{where}.args.{index}.name"),
                one.get("args"),
                f"{where}.args.{index}",
            )
        ]
    if isinstance(args, list):
        args = dict(zip(_parameters(function), args, strict=False))
    if not isinstance(args, dict) or "learning_rate" not in args:
        return []
    place = f"{where}.args.learning_rate"
    return [(place, construct(args["learning_rate"], "optimizer", place))]


def _fill(value, name, number):
    if isinstance(value, dict):
        return {key: _fill(one, name, number) for key, one in value.items()}
    if isinstance(value, list):
        return [_fill(one, name, number) for one in value]
    return number if value == name else value
