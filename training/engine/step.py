"""The state of training and its functions, composed plain: forward, init, one update, evaluate.

The update itself is `training.optimizers.update`, made to be changed; what surrounds it is here.
Nothing is compiled here: that happens once, in training/engine/compilation.py.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from data_loader.device_cache import gather
from training.common.measure import (
    EVALUATED_STEP,
    loss_name,
    measure,
    measure_loss,
    prefixed,
    with_names,
)
from training.common.trees import cast, check_part, merge, split
from training.engine.accumulation import accumulated
from training.engine.augment import augmented
from training.engine.class_weights import weigh_classes
from training.engine.parts import Parts, around_frozen, freeze, multipliers, with_rates
from training.optimizers import gradients, update

LARGE = 2**26  # bytes of a state of which no second one is to be computed and thrown away
NO_PARTS = Parts()  # of the network that are treated in a way of their own


class TrainState(NamedTuple):
    """Everything that training changes: arrays only."""

    step: jax.Array  # updates done
    params: Any  # of the network, running statistics included
    optimizers: dict  # {group: state of its optimizer}
    ema_params: Any  # moving average of the trained params; None: not kept
    finite: jax.Array  # False after a loss or gradient was not finite; then nothing changes


class OptimizerGroup(NamedTuple):
    """Which loss trains which part of the parameters with which optimizer."""

    loss: Any  # (outputs, targets) -> per-example values, or {part: values}; see training/loss.py
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


def make_forward(model, preprocess=None, compute_dtype="float32"):
    """Returns `forward(params, inputs, key, train) -> (outputs, params)`.

    Args:
        model: the network, `(inputs, params=, key=, train=) -> (outputs, params)`.
        preprocess: `inputs -> inputs`; None: as they are.
        compute_dtype: of the network's arithmetic; parameters and outputs stay float32.
    """

    def forward(params, inputs, key, train):
        if key is not None:
            _, key = jax.random.split(key)  # the other half is for augmentation
        inputs = jax.tree.map(_without_float16, forward.preprocess(inputs))
        if compute_dtype != "float32":
            trained, stats = split(params)
            params = merge(cast(trained, compute_dtype), stats)
            inputs = cast(inputs, compute_dtype)
        outputs, params = model(inputs, params=params, key=key, train=train)
        return cast(outputs, jnp.float32), params

    forward.preprocess = preprocess or (lambda inputs: inputs)
    return forward


def _without_float16(leaf):
    """Data kept in float16 are computed with in float32: gradients in float16 would vanish."""
    return leaf.astype(jnp.float32) if getattr(leaf, "dtype", None) == jnp.float16 else leaf


def make_init(forward, groups, seed=0, ema=None, frozen=()):
    """Returns `init(batch) -> TrainState`; see `make_step` for the arguments."""

    def init(batch):
        key, _ = jax.random.split(jax.random.key(seed))
        _, params = forward(None, batch["inputs"], key, False)
        for name, group in groups.items():
            for path in group.params:
                check_part(params, path, f"training.optimizer_groups.{name}.params")
        return state_of(params, groups, ema, frozen)

    return init


def state_of(params, groups, ema=None, frozen=()):
    """Returns the TrainState with which training begins from these parameters."""
    trained, _ = split(freeze(params, frozen)[0])
    optimizers = {
        name: group.optimizer.init(split(trained, group.params)[0])
        for name, group in groups.items()
    }
    ema_params = trained if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizers, ema_params, jnp.ones((), bool))


def make_step(
    forward,
    groups,
    metrics,
    seed=0,
    accumulate=1,
    ema=None,
    class_weights=None,
    parts=NO_PARTS,
    augment=None,
):
    """Returns `step(state, batch) -> (state, measured)`: the update and what surrounds it.

    Args:
        forward: what `make_forward` returns.
        groups: {name: OptimizerGroup}.
        metrics: {name: function of (outputs, targets)}.
        seed: with the state's step it gives each update its key.
        accumulate: pieces a batch is processed in, one after the other, to save memory.
        ema: decay of the weights' moving average per update; None: none is kept.
        class_weights: (classes,) weights; None: all classes count as they are.
        parts: Parts of the network that are frozen or learn at another rate.
        augment: (batch, key) -> batch; None: as it is.

    Returns:
        The step. `measured` maps the name of each loss, metric, gradient norm and learning rate to
        a pair (sum, weight), the mean being their quotient, and "finite" to a bool.
    """

    def step(state, batch):
        key = step_key(seed, state.step)
        batch = gather(batch)
        weight = batch["weight"]
        if class_weights is not None:
            batch = weigh_classes(batch, class_weights)
        # The update sees only what is trained: there is no gradient of what is frozen.
        params, frozen = freeze(state.params, parts.freeze)
        of_params, of_groups = around_frozen(forward, groups, frozen, parts.freeze)
        grads_of = partial(gradients, forward=of_params, groups=of_groups, metrics=metrics)
        if augment:
            grads_of = augmented(grads_of, augment)
        if accumulate > 1:
            grads_of = accumulated(grads_of, accumulate)
        grads_of = partial(grads_of, step=state.step)
        trained = with_rates(groups, multipliers(parts, forward, batch["inputs"]))
        unfrozen = state._replace(params=params)
        take, measured = update(unfrozen, batch, key, gradients=grads_of, groups=trained)
        if ema:
            take = with_moving_average(take, ema)
        new, measured = take_if_finite(take, unfrozen, measured, groups, weight)
        return new._replace(params=merge(new.params, frozen)), measured

    return step


def make_evaluate(forward, groups, metrics):
    """Returns `evaluate(params, batch) -> (measured, outputs)`; see `make_step`.

    "finite" in `measured` is whether the outputs are.
    """

    def evaluate(params, batch):
        batch = gather(batch)
        outputs, _ = forward(params, batch["inputs"], None, False)
        measured = measure(metrics, outputs, batch)
        for name, group in groups.items():
            found = measure_loss(name, group.loss, outputs, batch, **in_evaluation(params))
            measured = with_names(measured, found, f"the loss of {name}")
        return measured | {"finite": outputs_finite(outputs, batch["weight"])}, outputs

    return evaluate


def in_evaluation(params):
    """Returns what a loss is given outside of training: always the same step and key."""
    step = jnp.full((), EVALUATED_STEP, jnp.int32)
    return {"step": step, "key": jax.random.key(0), "params": params, "train": False}


def outputs_finite(outputs, weight):
    """Returns whether what a network gave is finite, a bool, where an example counts.

    -inf is allowed: the logit of what cannot be. If it is a mistake, the loss is not finite.
    """
    finite = jnp.ones((), bool)
    for leaf in jax.tree.leaves(outputs):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        bad = jnp.isnan(leaf) | (leaf == jnp.inf)
        counts = weight if leaf.shape[: weight.ndim] == weight.shape else _of_examples(weight)
        if leaf.shape[: counts.ndim] == counts.shape:
            bad = bad.reshape(*counts.shape, -1).any(-1) & (counts != 0)
        finite &= ~bad.any()
    return finite


def _of_examples(weight):
    """Returns the weight of each example, (batch,), of what may have positions as well."""
    return jnp.abs(weight).reshape(len(weight), -1).sum(-1)


def take_if_finite(take, state, measured, groups, weight):
    """Returns `take(state)`, or the state where a loss or gradient is not finite; and measured.

    The step that is not taken can then be saved and examined. Of a batch in which everything has
    the weight 0, nothing is learned and nothing measured.
    """
    finite, empty = state.finite, jnp.ones((), bool)
    for name in groups:
        empty &= measured[loss_name(name)][1] == 0
    empty |= ~(weight != 0).any()  # whatever an augmentation has made of it
    for name in groups:
        total, _ = measured[loss_name(name)]
        norm, _ = measured[prefixed(name, "gradient_norm")]
        finite &= empty | (jnp.isfinite(total) & jnp.isfinite(norm))
    new = take_if(finite & ~empty, take, state)
    measured = jax.tree.map(lambda one: jnp.where(empty, jnp.zeros_like(one), one), measured)
    return new._replace(finite=finite), measured | {"finite": finite}


def take_if(wanted, take, state):
    """Returns `take(state)` where `wanted`, or the state as it is, to the bit.

    A conditional computes, and holds in memory, only what it returns. Of a small state it costs
    more than it saves, as it is compiled apart from the gradients. On a GPU it would wait for the
    host to read `wanted`; there both are at hand number by number in the pass that computes the
    new state.
    """
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    if size < LARGE or jax.default_backend() == "gpu":
        new = take(state)
        return jax.tree.map(lambda after, before: jnp.where(wanted, after, before), new, state)
    return jax.lax.cond(wanted, take, lambda state: state, state)


def with_moving_average(take, decay):
    """Returns the step that moves the average of the trained params as well."""

    def take_both(state):
        new = take(state)
        return new._replace(ema_params=moving_average(state, new.params, decay))

    return take_both


def moving_average(state, params, decay):
    """Returns the moving average of the trained params after an update; it starts quickly."""
    trained, _ = split(params)
    decay = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    # In this form the average of what does not change, as of frozen parts, is the same to the bit.
    return jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), state.ema_params, trained)
