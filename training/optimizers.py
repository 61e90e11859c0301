"""Optimizers, and the update they serve.

An optimizer is optax's pair `init(params) -> state`, `update(grads, state, params) -> (updates,
state)`; `sgd` and `adamw` are written here to be read, every other comes from optax by name.
`make_update` returns the one jitted function of training, `update(state, batch) -> (state,
measured)`. It serves several networks as it serves one: a rule says which loss trains which part
of the parameters by which optimizer, and a single rule is the common case.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from training.compiling import jit_evaluate, jit_init, jit_update
from training.metrics import measure, weigh
from training.resident import fetch
from training.trees import cast, merge, split
from utils import UserError

SINGLE_RULE = "network"  # the name of the rule where there is but one


class TrainState(NamedTuple):
    """Everything that training changes, arrays only."""

    step: jax.Array  # updates done
    params: Any  # of the network, running statistics included
    optimizers: dict  # each rule's optimizer state
    average: Any  # moving average of the trained params; None: not kept
    finite: jax.Array  # False once a loss or gradient was not finite: then nothing changes any more


class Rule(NamedTuple):
    """Which loss trains which parts of the parameters by which optimizer."""

    loss: Any  # (outputs, targets) -> per-example values
    optimizer: Any  # optax's pair
    trains: tuple = ()  # paths of the parts it trains ("generator"); none named: everything
    learning_rate: Any = None  # what the optimizer was given, to be logged


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
    """Tells which arrays have two axes and more: a mask for optax's decay of weights.

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


def make_forward(model, prepare, compute_dtype="float32"):
    """Returns `forward(params, inputs, key, train) -> (outputs, params)`.

    Args:
        model: the network, `(inputs, params=, key=, train=) -> (outputs, params)`.
        prepare: `(inputs, key, train) -> inputs`, augmentation and preprocessing.
        compute_dtype: of the network's arithmetic; parameters and outputs stay float32.
    """

    def forward(params, inputs, key, train):
        prepare_key, model_key = (None, None) if key is None else jax.random.split(key)
        inputs = prepare(inputs, prepare_key, train)
        if compute_dtype != "float32":
            trained, fixed = split(params)
            params = merge(cast(trained, compute_dtype), fixed)
            inputs = cast(inputs, compute_dtype)
        outputs, params = model(inputs, params=params, key=model_key, train=train)
        return cast(outputs, jnp.float32), params

    return forward


def make_init(forward, rules, seed=0, ema=None):
    """Returns the jitted `init(batch) -> TrainState`; see `make_update` for the arguments."""

    def init(batch):
        key, _ = jax.random.split(jax.random.key(seed))
        _, params = forward(None, batch["inputs"], key, False)
        optimizers = {}
        for name, rule in rules.items():
            part, _ = split(params, rule.trains)
            if not jax.tree.leaves(part):
                raise UserError(
                    f"training.rules.{name}.trains: {list(rule.trains)}, but no parameters are "
                    f"there; the network's parts are {sorted(params)}"
                )
            optimizers[name] = rule.optimizer.init(part)
        average = split(params)[0] if ema else None
        step, finite = jnp.zeros((), jnp.int32), jnp.ones((), bool)
        return TrainState(step, params, optimizers, average, finite)

    return jit_init(init)


def make_update(forward, rules, metrics, seed=0, accumulate=1, ema=None):
    """Returns the jitted `update(state, batch) -> (state, measured)`; it consumes `state`.

    Args:
        forward: what `make_forward` returns.
        rules: {name: Rule}.
        metrics: {name: function of (outputs, targets)}.
        seed: with the state's step it gives each update its key.
        accumulate: pieces a batch is worked off in, one after the other, to save memory.
        ema: decay of the weights' moving average per update; None: none is kept.

    Returns:
        The update. `measured` maps the name of each loss, metric, gradient norm and learning rate
        to a pair (sum, weight), the mean being their quotient, and "finite" to a bool.
    """

    def gradients(trained, fixed, batch, key):
        """Sums over a batch: {rule: gradient}, {name: (sum, weight)}; and the new statistics."""

        def outputs_of(trained):
            outputs, params = forward(merge(trained, fixed), batch["inputs"], key, True)
            return outputs, split(params)[1]

        outputs, pull_back, statistics = jax.vjp(outputs_of, trained, has_aux=True)
        grads, measured = {}, measure(metrics, outputs, batch)
        for name, rule in rules.items():
            # One pass forward serves all the rules; each pulls its own loss back through it.
            def loss_of(outputs, loss=rule.loss):
                return weigh(loss(outputs, batch["targets"]), batch["weight"])

            total, pull_loss_back, weight = jax.vjp(loss_of, outputs, has_aux=True)
            (grads[name],) = pull_back(pull_loss_back(jnp.ones_like(total))[0])
            measured[loss_name(name)] = (total, weight)
        return grads, measured, statistics

    def update(state, batch):
        batch, key = fetch(batch), step_key(seed, state.step)
        trained, fixed = split(state.params)
        if accumulate == 1:
            grads, measured, fixed = gradients(trained, fixed, batch, key)
        else:
            pieces = _pieces(batch, accumulate)
            grads, measured, fixed = _accumulate(gradients, trained, fixed, pieces, key)

        optimizers, finite = {}, state.finite
        for name, rule in rules.items():
            total, weight = measured[loss_name(name)]
            part, _ = split(grads[name], rule.trains)
            part = jax.tree.map(lambda grad, weight=weight: grad / weight, part)
            norm = optax.tree.norm(part)
            updates, optimizers[name] = rule.optimizer.update(
                part, state.optimizers[name], split(state.params, rule.trains)[0]
            )
            trained = merge(optax.apply_updates(split(trained, rule.trains)[0], updates), trained)
            finite &= jnp.isfinite(total) & jnp.isfinite(norm)
            measured[prefixed(name, "gradient_norm")] = (norm, jnp.ones(()))
            if rule.learning_rate is not None:
                rate = jnp.asarray(_at(rule.learning_rate, state.step), jnp.float32)
                measured[prefixed(name, "learning_rate")] = (rate, jnp.ones(()))

        average = state.average
        if ema:
            decay = jnp.minimum(ema, (1 + state.step) / (10 + state.step))
            average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, trained)
        new = TrainState(state.step + 1, merge(trained, fixed), optimizers, average, finite)
        # A step that is not finite is not taken, so what led to it can be saved and looked at.
        new = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
        return new._replace(finite=finite), measured | {"finite": finite}

    return jit_update(update)


def make_evaluate(forward, rules, metrics):
    """Returns the jitted `evaluate(params, batch) -> (measured, outputs)`; see `make_update`."""

    def evaluate(params, batch):
        batch = fetch(batch)
        outputs, _ = forward(params, batch["inputs"], None, False)
        losses = {loss_name(name): rule.loss for name, rule in rules.items()}
        return measure(metrics | losses, outputs, batch), outputs

    return jit_evaluate(evaluate)


def step_key(seed, step):
    """Returns the key of an update, made anew from two numbers, so that none has to be saved."""
    _, key = jax.random.split(jax.random.key(seed))  # the other half made the parameters
    return jax.random.fold_in(key, step)


def evaluation_params(state):
    """Returns the parameters to evaluate with: the moving average where one is kept."""
    return state.params if state.average is None else merge(state.average, state.params)


def loss_name(rule):
    """Returns the name under which a rule's loss is measured."""
    return prefixed(rule, "loss")


def prefixed(rule, name):
    """Returns "rule_name", or just the name where there is a single rule."""
    return name if rule == SINGLE_RULE else f"{rule}_{name}"


def _at(rate, count):
    return rate(count) if callable(rate) else rate


def _pieces(batch, count):
    def cut(leaf):
        if len(leaf) % count:
            raise UserError(f"training.accumulate={count} does not divide a batch of {len(leaf)}")
        # Every count-th row makes a piece: of rows spread over devices each has some of each piece.
        return leaf.reshape(len(leaf) // count, count, *leaf.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, batch)


def _accumulate(gradients, trained, fixed, pieces, key):
    """Sums gradients and measurements over pieces of a batch, one after the other."""

    def body(carry, piece):
        index, fixed, *sums = carry
        grads, measured, fixed = gradients(trained, fixed, piece, jax.random.fold_in(key, index))
        return (index + 1, fixed, *jax.tree.map(jnp.add, sums, [grads, measured])), None

    first = jax.tree.map(lambda leaf: leaf[0], pieces)
    shapes = jax.eval_shape(gradients, trained, fixed, first, key)[:2]
    sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (_, fixed, grads, measured), _ = jax.lax.scan(body, (0, fixed, *sums), pieces)
    return grads, measured, fixed
