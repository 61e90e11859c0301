"""Outputs with labels, and what the framework makes of an aggregated metric of them."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.common.measure import measure
from training.tracking.metric_logger import MetricAccumulator

cases = given(st.integers(0, 1000), st.integers(2, 60), st.integers(3, 6))


def summed(metric, outputs, targets, weight=None, cuts=3):
    """{name: number} that the framework makes of an aggregated metric, over unequal batches."""
    sums = MetricAccumulator()
    weight = np.ones(len(targets), np.float32) if weight is None else weight
    for part in np.array_split(np.arange(len(targets)), cuts):
        if len(part):
            batch = {"targets": targets[part], "weight": jnp.array(weight[part])}
            sums.add(measure({"m": metric}, jnp.array(outputs[part]), batch))
    return sums.results({"m": metric.compute})


def drawn(seed, count, classes, tied=True):
    """Logits, many of them equal, with labels of which some classes may be missing."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, classes)).astype(np.float32) * 2
    labels = np.minimum(random.geometric(0.4, count) - 1, classes - 1).astype(np.int32)
    return logits.round() if tied else logits, labels


def finished(metric, logits, labels, weight=None, cuts=3):
    """What the framework makes of a metric, over unequal batches."""
    sums = MetricAccumulator()
    weight = np.ones(len(labels), np.float32) if weight is None else weight
    for part in np.array_split(np.arange(len(labels)), cuts):
        if len(part):
            batch = {"targets": labels[part], "weight": jnp.array(weight[part])}
            sums.add(measure({"m": metric}, jnp.array(logits[part]), batch))
    return sums.results({"m": metric.compute} if hasattr(metric, "compute") else {})["m"]
