"""The update of the parameters, and the optimizers and schedules a config can name.

An optimizer is optax's pair `init(params) -> state`, `update(grads, state, params) -> (updates,
state)`; `sgd` and `adamw` are written here to be read, every other comes from optax by name.

`gradients` and `update` are the heart of training, made to be read and changed: noise on the
gradients, another order of steps, a loss that needs second derivatives go here. What surrounds them
(accumulation, moving average, check for values that are not finite, several steps or seeds at once,
several devices, compilation) is in training/engine/.
"""

import jax
import jax.numpy as jnp
import optax

from training.common.measure import (
    asked_of,
    loss_name,
    measure,
    measure_loss,
    norm_and_rate,
    with_names,
)
from training.common.trees import merge, split


def update(state, batch, key, *, gradients, groups):
    """Computes one step of training.

    Args:
        state: TrainState: step, params, optimizers, ...
        batch: {"inputs": (batch, ...), "targets": (batch, ...), "weight": (batch,)}.
        key: random key of this step.
        gradients: the function below, of (params, batch, key).
        groups: {name: OptimizerGroup}: which loss trains which params with which optimizer; one
            called "network" in the common case.

    Returns:
        The step, a function of the state that returns the new one: it is taken where all losses and
        gradients are finite. And {name: (sum, weight)} of everything to be logged.
    """
    grads, measured, stats = gradients(state.params, batch, key)
    for name, group in groups.items():
        grads[name] = split(grads[name], group.params)[0]
        measured |= norm_and_rate(name, group, grads[name], state.step)

    def step(state):
        trained, optimizers = split(state.params)[0], {}
        for name, group in groups.items():
            params, own = split(state.params, group.params)[0], state.optimizers[name]
            updates, optimizers[name] = group.optimizer.update(grads[name], own, params)
            trained = merge(optax.apply_updates(split(trained, group.params)[0], updates), trained)
        params = merge(trained, stats)
        return state._replace(step=state.step + 1, params=params, optimizers=optimizers)

    return step, measured


def gradients(params, batch, key, *, forward, groups, metrics, step=None, mean=True):
    """Runs the network forward and backward on a batch.

    Args:
        params: of the network, running statistics included.
        batch: see `update`.
        key: random key of this step.
        forward: (params, inputs, key, train) -> (outputs, params).
        groups: {name: OptimizerGroup}.
        metrics: {name: function of (outputs, targets)}.
        step: updates done, for a loss that names it.
        mean: whether the gradients are those of the mean loss, or of the summed one.

    Returns:
        {group: gradient of its loss}, {name: (sum, weight)} of losses and metrics, and the
        new running statistics.
    """
    trained, stats = split(params)

    def outputs_of(trained):
        outputs, params = forward(merge(trained, stats), batch["inputs"], key, True)
        return outputs, split(params)[1]

    outputs, backward, stats = jax.vjp(outputs_of, trained, has_aux=True)
    grads, measured = {}, measure(metrics, outputs, batch)
    for name, group in groups.items():  # one forward pass serves all groups

        def loss_of(outputs, trained, name=name, loss=group.loss):
            given = {"step": step, "key": key, "params": merge(trained, stats), "train": True}
            found = measure_loss(name, loss, outputs, batch, **given)
            return found[loss_name(name)][0], found

        total, loss_backward, found = jax.vjp(loss_of, outputs, trained, has_aux=True)
        # Divided is this one number, not every gradient.
        share = 1 / found[loss_name(name)][1] if mean else 1
        of_outputs, of_params = loss_backward(jnp.full_like(total, share))
        (grads[name],) = backward(of_outputs)
        if "params" in asked_of(group.loss):
            grads[name] = jax.tree.map(jnp.add, grads[name], of_params)
        measured = with_names(measured, found, f"the loss of {name}")
    return grads, measured, stats


def sgd(learning_rate, momentum=0.0, nesterov=False):
    """Makes stochastic gradient descent.

    Args:
        learning_rate: a number, or a schedule: function of the number of updates done.
        momentum: decay of the gradients' running sum (Sutskever et al. 2013,
            https://proceedings.mlr.press/v28/sutskever13.html).
        nesterov: look one step ahead along it.
    """

    def init(params):
        trace = jax.tree.map(jnp.zeros_like, params) if momentum else None
        return {"count": jnp.zeros((), jnp.int32), "trace": trace}

    def update(grads, state, params=None):
        step, trace = grads, None
        if momentum:
            trace = jax.tree.map(lambda g, t: g + momentum * t, grads, state["trace"])
            step = trace
            if nesterov:
                step = jax.tree.map(lambda g, t: g + momentum * t, grads, trace)
        rate = _at(learning_rate, state["count"])
        updates = jax.tree.map(lambda s: -rate * s, step)
        return updates, {"count": state["count"] + 1, "trace": trace}

    return optax.GradientTransformation(init, update)


def adamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4, decay_vectors=True):
    """Makes Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101).

    Args:
        learning_rate: a number, or a schedule: function of the number of updates done.
        b1: decay of the gradients' running mean.
        b2: decay of their squares' running mean.
        eps: added to the root of the latter.
        weight_decay: share of the weights taken off, times the learning rate.
        decay_vectors: decay biases and scales too, not only arrays of two axes and more.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return {"count": jnp.zeros((), jnp.int32), "mean": zeros, "square": zeros}

    def update(grads, state, params):
        count = state["count"] + 1
        mean = jax.tree.map(lambda g, m: (1 - b1) * g + b1 * m, grads, state["mean"])
        square = jax.tree.map(lambda g, s: (1 - b2) * g**2 + b2 * s, grads, state["square"])
        mean_share, square_share = 1 - b1**count, 1 - b2**count  # both means began at zero
        rate = _at(learning_rate, state["count"])

        def step(m, s, p):
            direction = (m / mean_share) / (jnp.sqrt(s / square_share) + eps)
            if decay_vectors or p.ndim > 1:
                direction += weight_decay * p
            return -rate * direction

        updates = jax.tree.map(step, mean, square, params)
        return updates, {"count": count, "mean": mean, "square": square}

    return optax.GradientTransformation(init, update)


def matrices(params):
    """Returns which arrays have two axes or more: a mask for optax's weight decay.

    Args:
        params: tree of arrays.

    Returns:
        the same tree with booleans.
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def warmup_cosine(peak, total_steps, warmup=0.1):
    """Makes a learning rate that rises in a line to `peak` and falls to 0 along half a cosine.

    Args:
        peak: the highest learning rate.
        total_steps: updates of the whole training; in a config "total_steps" stands for them.
        warmup: share of them in which it rises.
    """
    rise = min(round(warmup * total_steps), total_steps - 1)
    return optax.warmup_cosine_decay_schedule(0.0, peak, rise, total_steps)


def _at(rate, count):
    return rate(count) if callable(rate) else rate
