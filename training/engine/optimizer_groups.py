"""The optimizer groups of a config: each with its loss, its optimizer and what it trains."""

import math

import optax

from training.config import HOMES, is_named
from training.engine.binding import construct, parameters_of
from training.engine.state import OptimizerGroup
from utils import UserError, call, resolve


def make_group(group, loss, clip_norm, total_steps, where):
    """Returns the OptimizerGroup of a section of the config.

    Args:
        group: the section, training.config.OptimizerGroup.
        loss: its loss, bound already.
        clip_norm: longest gradient allowed, or None.
        total_steps: updates of the whole training; in arguments "total_steps" stands for it.
        where: the place of its optimizer in the config.

    Raises:
        UserError: it makes no optimizer, or a learning rate is no number or schedule.
    """
    function = resolve(group.optimizer.name, HOMES["optimizer"], f"{where}.name")
    args = _fill(group.optimizer.args, "total_steps", total_steps)
    args = construct(args, "optimizer", f"{where}.args")
    optimizer = call(function, args, f"{where}.args")
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise UserError(
            f"{where}.name: {group.optimizer.name!r} makes no optimizer: expected init "
            "and update, as optax's have"
        )
    if clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
    rates = _learning_rates(
        function, _fill(group.optimizer.args, "total_steps", total_steps), where
    )
    for spot, rate in rates:
        number = isinstance(rate, int | float) and math.isfinite(rate)
        if rate is not None and not callable(rate) and not number:
            raise UserError(
                f"{spot}: expected a number, or a schedule as "
                f'{{"name": ..., "args": ...}}, got {rate!r}'
            )
    rate = rates[0][1] if len(rates) == 1 else None  # of several, none is the learning rate
    return OptimizerGroup(loss, optimizer, tuple(group.params), rate)


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
        args = dict(zip(parameters_of(function), args, strict=False))
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
