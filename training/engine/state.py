"""The state of training, and the optimizer groups that change it."""

from typing import Any, NamedTuple

import jax

from training.common.trees import merge


class TrainState(NamedTuple):
    """Everything that training changes: arrays only."""

    step: jax.Array  # updates done
    params: Any  # of the network, running statistics included
    optimizers: dict  # {group: state of its optimizer}
    ema_params: Any  # moving average of the trained params; None: not kept
    finite: jax.Array  # False after a loss or gradient was not finite; then nothing changes


class OptimizerGroup(NamedTuple):
    """Which loss trains which part of the parameters with which optimizer."""

    loss: Any  # (outputs, targets) -> per-example values
    optimizer: Any  # optax's pair
    params: tuple = ()  # paths of the parts it trains ("generator"); empty: everything
    learning_rate: Any = None  # number or schedule the optimizer was given, to be logged


def step_key(seed, step):
    """Returns the key of an update. It is computed from two numbers, so none has to be saved."""
    _, key = jax.random.split(jax.random.key(seed))  # the other half made the parameters
    return jax.random.fold_in(key, step)


def eval_params(state):
    """Returns the parameters to evaluate with: the moving average where one is kept."""
    return state.params if state.ema_params is None else merge(state.ema_params, state.params)
