"""Weighted sums over a batch: the form in which losses and metrics are measured.

Everything measured is a pair (sum, weight), so that batches, pieces of a batch and processes can be
added up exactly; the mean is the quotient.
"""

from dataclasses import dataclass
from functools import partial
from inspect import Parameter
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import optax

from utils import UserError, signature_of

LONGEST_VECTOR = 100  # numbers of a result that are logged one by one
SINGLE_GROUP = "network"  # the name of the optimizer group where there is only one
GIVEN = ("step", "key", "params", "train", "weight")  # what a loss is given if it names it
EVALUATED_STEP = 2**30  # the step that evaluation gives: what a loss anneals has come to its end
KEY_OF_LOSS = 2  # folded into the step's key; the halves 0 and 1 are augmentation's and network's
TAKEN = ("loss", "gradient_norm", "learning_rate", "finite")  # names that no part may have


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


def over_the_epoch(metric):
    """Marks a metric of a whole split: `metric(outputs, targets)` -> a number, or {name: number}.

        @over_the_epoch
        def median_error(outputs, targets):
            return float(np.median(np.abs(outputs - targets)))

    It gets NumPy arrays, or trees of them, of all the outputs and targets that an evaluation has
    seen, each example once, in the loader's order; where positions have weights of their own, those
    of the positions that count, one after the other. It is not computed of the training split: its
    outputs are of many different parameters.
    """
    metric.over_the_epoch = True
    return metric


finished_by = aggregated  # its name in the code that older run folders keep


@partial(jax.tree_util.register_dataclass, data_fields=["index", "counts"], meta_fields=["table"])
@dataclass(frozen=True)
class Cells:
    """A statistic that is 1 in a single cell of a table for each example, and 0 elsewhere.

    A confusion matrix is the sum of such. Only the numbers of the cells leave the device, so that
    a table of 1,000 classes costs no more than one of ten.

    Attributes:
        index: (batch, ...) integers, the cell of each example in the flat table; outside: none.
        table: shape of the table.
        counts: what is added to each cell; None: 1, times the weight of the example.
    """

    index: jax.Array
    table: tuple
    counts: jax.Array | None = None

    @property
    def shape(self):
        """The shape of the dense statistic, (batch, ..., *table)."""
        return *self.index.shape, *self.table

    def dense(self):
        """Returns the statistic as an array, (batch, ..., *table), to compute with."""
        dense = jax.nn.one_hot(self.index, prod(self.table))
        dense = dense if self.counts is None else dense * self.counts[..., None]
        return dense.reshape(self.shape)

    def __array__(self, dtype=None, copy=None):
        """Returns `dense` as a NumPy array."""
        return np.asarray(self.dense(), dtype)

    def weighted(self, weight):
        """Returns flat cells and counts: the weights of the examples in the table, 0 elsewhere."""
        inside = (self.index >= 0) & (self.index < prod(self.table))
        weight = jnp.expand_dims(weight, tuple(range(weight.ndim, self.index.ndim)))
        weight = weight if self.counts is None else weight * self.counts
        counts = jnp.where(inside, weight, 0.0).reshape(-1)
        return Cells(jnp.where(inside, self.index, 0).reshape(-1), self.table, counts)

    def add_to(self, total):
        """Adds weighted cells on the host to a float64 table, in place.

        Several seeds have an axis of their own before the cells, and the table.
        """
        index, counts = np.asarray(self.index), np.asarray(self.counts, np.float64)
        if index.ndim > 1:
            size = total[0].size
            index = index + size * np.arange(len(total), dtype=np.int64)[:, None]
        np.add.at(total.reshape(-1), index.reshape(-1), counts.reshape(-1))


def measure(metrics, outputs, batch):
    """Returns {name: (sum, weight)} of per-example functions over a batch.

    A metric may return {name: values}, each of which is measured by its own name.
    """
    measured = {}
    for name, metric in metrics.items():
        values = metric(outputs, batch["targets"])
        named = values if isinstance(values, dict) else {name: values}
        statistic = hasattr(metric, "compute")
        sums = {key: weighted_sum(one, batch["weight"], statistic) for key, one in named.items()}
        measured = with_names(measured, sums, f"the metric {name}")
    return measured


def measure_loss(group, loss, outputs, batch, **given):
    """Returns {name: (sum, weight)} of an optimizer group's loss, and of the parts that it names.

    The sum of the parts is trained. Of a part with more axes each example has the mean over them,
    as of a single loss.

    Args:
        group: name of the optimizer group.
        loss: (outputs, targets, and what it names of GIVEN) -> values, or {name: values}.
        outputs: of the network.
        batch: dict with targets and weight.
        given: step, key (of the whole step), params and train.
    """
    weight, values = batch["weight"], call_loss(loss, outputs, batch, **given)
    if not isinstance(values, dict):
        return {loss_name(group): weighted_sum(values, weight)}
    if taken := set(values) & set(TAKEN):
        raise FunctionError(f"the loss has a part {taken.pop()!r}; expected another name for it")
    measured = {prefixed(group, name): weighted_sum(one, weight) for name, one in values.items()}
    inner = [prod(one.shape[weight.ndim :]) for one in values.values()]
    total = sum(part / size for (part, _), size in zip(measured.values(), inner, strict=True))
    own = {loss_name(group): (total, weight.sum())}
    return with_names(own, measured, "the loss")


def call_loss(loss, outputs, batch, **given):
    """Returns what a loss returns, given what it asks for; see `measure_loss`."""
    given |= {"key": jax.random.fold_in(given["key"], KEY_OF_LOSS), "weight": batch["weight"]}
    asked = {name: given[name] for name in asked_of(loss)}
    return loss(outputs, batch["targets"], **asked)


def asked_of(loss):
    """Returns which names of GIVEN a loss takes, after a *."""
    signature = signature_of(loss)
    parameters = signature.parameters if signature else {}
    return [
        name
        for name in GIVEN
        if name in parameters and parameters[name].kind is Parameter.KEYWORD_ONLY
    ]


def named_numbers(name, result):
    """Returns {name: number} of a metric's result: a number, {name: number}, or a vector.

    A vector's numbers are called name_0, name_1, ... One of more than LONGEST_VECTOR, or a table,
    remains an array, which is not logged.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(result, dict) and result:
        return {str(key): _number(f"{name}: {key}", one) for key, one in result.items()}
    if np.ndim(result) == 1 and len(result) <= LONGEST_VECTOR:
        return {f"{name}_{index}": _number(name, one) for index, one in enumerate(result)}
    return {name: np.asarray(result) if np.ndim(result) else _number(name, result)}


def _number(name, value):
    if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "biuf":
        return float(value)
    got = f"{type(value).__name__} {value!r}"[:80]
    raise ValueError(f"{name} is {got}; expected a number, or a dict of numbers by name")


def with_names(measured, more, source):
    """Returns both dicts as one; refuses a name that is in both."""
    if both := set(measured) & set(more):
        name = min(both)
        raise FunctionError(f"{source} measures {name!r}, and so does another; rename one of them")
    return measured | more


def weighted_sum(values, weight, statistic=False):
    """Sums per-example values times their weight.

    Args:
        values: (batch, ...), or Cells.
        weight: (batch,), or (batch, positions) for values that have positions.
        statistic: keep the axes that the weight does not have.

    Returns:
        The sum, of Cells those with their weights, and the sum of the weights it stands for.
    """
    if values.shape[: weight.ndim] != weight.shape:
        raise FunctionError(
            f"a loss or metric returned shape {values.shape}, expected a value for each example: "
            f"{weight.shape} or more axes after it. It must not average or sum over the batch"
        )
    if isinstance(values, Cells):
        return values.weighted(weight), weight.sum()
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
