"""Losses and metrics against optax, SciPy, scikit-learn and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.project import examples
from training import metrics
from training.common.measure import measure
from training.tracking.metric_logger import MetricAccumulator

few = examples(15)


def finished(metric, logits, labels, weight=None, cuts=3):
    """What the framework makes of a metric, over unequal batches."""
    sums = MetricAccumulator()
    weight = np.ones(len(labels), np.float32) if weight is None else weight
    for part in np.array_split(np.arange(len(labels)), cuts):
        if len(part):
            batch = {"targets": labels[part], "weight": jnp.array(weight[part])}
            sums.add(measure({"m": metric}, jnp.array(logits[part]), batch))
    return sums.results({"m": metric.compute} if hasattr(metric, "compute") else {})["m"]


def dense_confusion_matrix(logits, labels):
    """The statistic as an array for each example: (batch, ..., classes, classes)."""
    classes = logits.shape[-1]
    right, guess = (jax.nn.one_hot(one, classes) for one in (labels, logits.argmax(-1)))
    return right[..., :, None] * guess[..., None, :]


@few
@given(st.integers(0, 1000), st.integers(1, 40), st.integers(2, 12), st.booleans())
def test_a_confusion_matrix_adds_the_weights_of_dense_statistics(seed, batch, classes, sequences):
    """Also where a label is no class, and with a weight for each position or for the example."""
    random, length = np.random.default_rng(seed), 3
    shape = (batch, length) if sequences else (batch,)
    logits = random.normal(size=(*shape, classes)).astype(np.float32)
    labels = random.integers(-1, classes + 1, shape).astype(np.int32)
    metric = metrics.aggregated(metrics.confusion_matrix.compute)(dense_confusion_matrix)
    for weight in (random.random(batch, np.float32), random.random(shape, np.float32)):
        np.testing.assert_allclose(
            finished(metrics.confusion_matrix, logits, labels, weight),
            finished(metric, logits, labels, weight), rtol=1e-6,
        )  # fmt: skip
