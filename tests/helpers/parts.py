"""Losses of several parts, and those that ask for what training knows."""

import jax
import jax.numpy as jnp

from training.loss import cross_entropy


def of_parts(outputs, targets, *, step, anneal=4):
    """Two parts with other axes, one of which is annealed: (batch,) and (batch, classes)."""
    share = jnp.minimum(step / anneal, 1.0)
    return {"size": share * jnp.square(outputs), "right": cross_entropy(outputs, targets)}


def asking(outputs, targets, *, step, key, params, train, weight):
    """Needs all that a loss can ask for."""
    noise = jax.random.uniform(key, weight.shape) if train else 0.0 * weight
    size = sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(params))
    return cross_entropy(outputs, targets) + noise + 0.01 * size + 0.0 * step


def scalars(outputs, targets):
    return {"right": cross_entropy(outputs, targets).mean(), "size": jnp.square(outputs)}


def nothing(outputs, targets):
    return {}


def a_pair(outputs, targets):
    return cross_entropy(outputs, targets), outputs


def called_accuracy(outputs, targets):
    return {"accuracy": cross_entropy(outputs, targets)}


def called_loss(outputs, targets):
    return {"loss": cross_entropy(outputs, targets)}


def with_a_default(outputs, targets, *, step=0):
    return cross_entropy(outputs, targets)


def by_position(outputs, targets, step):
    return cross_entropy(outputs, targets)


def not_finite(outputs, targets, *, step):
    bad = jnp.where(step >= 3, jnp.inf, 0.0)
    return {"right": cross_entropy(outputs, targets), "wrong": bad * jnp.square(outputs).sum(-1)}
