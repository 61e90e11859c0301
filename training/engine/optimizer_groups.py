"""The optimizer groups of a config: each with its loss, its optimizer and what it trains."""

import json
import math

import jax
import jax.numpy as jnp
import optax

from training.common.json_text import shorten
from training.config import HOMES, is_named
from training.engine.binding import construct, parameters_of
from training.engine.step import OptimizerGroup
from training.engine.user_code import FAULTS, reason_of
from utils import UserError, call, resolve


def make_group(group, loss, clip_norm, total_steps, where):
    """Returns the OptimizerGroup of a section of the config; its loss is bound already.

    In arguments "total_steps" stands for the updates of the whole training.
    """
    function = resolve(group.optimizer.name, HOMES["optimizer"], f"{where}.name")
    args = _fill(group.optimizer.args, total_steps)
    optimizer = call(function, construct(args, "optimizer", f"{where}.args"), f"{where}.args")
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise UserError(
            f"{where}.name: {group.optimizer.name!r} makes no optimizer: expected init "
            "and update, as optax's have"
        )
    if clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
    given = shorten(json.dumps(group.optimizer.args))
    what = f"{where}.args: {group.optimizer.name.rpartition(':')[2]} with {given}"
    optimizer = optax.GradientTransformation(
        _explained(optimizer.init, what), _explained(optimizer.update, what)
    )
    rates = _learning_rates(function, args, where)
    for spot, rate in rates:
        number = isinstance(rate, int | float) and math.isfinite(rate)
        if rate is not None and not callable(rate) and not number:
            raise UserError(
                f"{spot}: expected a number, or a schedule as "
                f'{{"name": ..., "args": ...}}, got {rate!r}'
            )
        if callable(rate):
            jax.eval_shape(_explained(rate, f"{spot}: the schedule"), jnp.zeros((), jnp.int32))
    rate = rates[0][1] if len(rates) == 1 else None  # of several, none is the learning rate
    return OptimizerGroup(loss, optimizer, tuple(group.params), rate)


def _explained(function, what):
    """Returns the function, its errors as one line: what is in the config made them."""

    def call(*args):
        try:
            return function(*args)
        except FAULTS as error:
            raise UserError(
                f"{what} does not work: {reason_of(error)}. Expected a number where it takes one, "
                'or a schedule, {"name": ..., "args": ...}'
            ) from error

    return call


def _learning_rates(function, args, where):
    """(place in the config, number or schedule) of each learning rate: in a chain there may be any.

    What stands deeper, inside of other wrappers, may count its updates otherwise.
    """
    if function is optax.chain and isinstance(args, list):
        rates = []
        for index, one in enumerate(args):
            if is_named(one):
                place = f"{where}.args.{index}"
                link = resolve(one["name"], HOMES["optimizer"], f"{place}.name")
                rates += _learning_rates(link, one.get("args"), place)
        return rates
    if isinstance(args, list):
        args = dict(zip(parameters_of(function), args, strict=False))
    if not isinstance(args, dict) or "learning_rate" not in args:
        return []
    place = f"{where}.args.learning_rate"
    return [(place, construct(args["learning_rate"], "optimizer", place))]


def _fill(value, total_steps):
    if isinstance(value, dict):
        return {key: _fill(one, total_steps) for key, one in value.items()}
    if isinstance(value, list):
        return [_fill(one, total_steps) for one in value]
    return total_steps if value == "total_steps" else value
