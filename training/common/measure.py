"""Weighted sums over a batch: the form in which losses and metrics are measured.

Everything measured is a pair (sum, weight), so that batches, pieces of a batch and processes can be
added up exactly; the mean is the quotient.
"""

import jax.numpy as jnp
import optax

from utils import UserError

SINGLE_GROUP = "network"  # the name of the optimizer group where there is only one


class FunctionError(UserError, ValueError):
    """A function that the config names refused what it was given, or returned what does not fit."""


def aggregated(compute):
    """Marks a metric that is more than a mean: `compute(total, weight)` makes its result.

        @aggregated(lambda total, weight: total)
        def confusion_matrix(logits, labels): ...

    Args:
        compute: function of the float64 sum over all examples of weight times statistic (the
            statistic's shape without the batch axis) and of the sum of the weights. It runs on the
            host, in NumPy.
    """

    def mark(metric):
        metric.compute = compute
        return metric

    return mark


finished_by = aggregated  # its name in the code that older run folders keep


def measure(metrics, outputs, batch):
    """Returns {name: (sum, weight)} of per-example functions over a batch."""
    return {
        name: weighted_sum(
            metric(outputs, batch["targets"]), batch["weight"], hasattr(metric, "compute")
        )
        for name, metric in metrics.items()
    }


def weighted_sum(values, weight, statistic=False):
    """Sums per-example values times their weight.

    Args:
        values: (batch, ...).
        weight: (batch,), or (batch, positions) for values that have positions.
        statistic: keep the axes that the weight does not have.

    Returns:
        The sum, and the sum of the weights it stands for.
    """
    if values.shape[: weight.ndim] != weight.shape:
        raise FunctionError(
            f"a loss or metric returned shape {values.shape}, expected a value for each example: "
            f"{weight.shape} or more axes after it. It must not average or sum over the batch"
        )
    inner = tuple(range(weight.ndim, values.ndim))
    weights = jnp.expand_dims(weight, inner)
    if statistic:
        return (values * weights).sum(tuple(range(weight.ndim))), weight.sum()
    weights = jnp.broadcast_to(weights, values.shape)
    return (values * weights).sum(), weights.sum()


def norm_and_rate(name, group, grads, step):
    """Returns the gradient norm and the learning rate of an optimizer group, as pairs to log."""
    measured = {prefixed(name, "gradient_norm"): (optax.tree.norm(grads), jnp.ones(()))}
    rate = group.learning_rate
    if rate is not None:
        rate = jnp.asarray(rate(step) if callable(rate) else rate, jnp.float32)
        measured[prefixed(name, "learning_rate")] = (rate, jnp.ones(()))
    return measured


def loss_name(group):
    """Returns the name under which the loss of an optimizer group is measured."""
    return prefixed(group, "loss")


def prefixed(group, name):
    """Returns "group_name", or just the name where there is a single group."""
    return name if group == SINGLE_GROUP else f"{group}_{name}"
