"""Losses and metrics against optax, SciPy, scikit-learn and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from sklearn import metrics as reference

from tests.helpers.metric_library import finished
from tests.helpers.project import examples
from training import loss, metrics

few = examples(15)


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


def by_hand(views, real, temperature):
    """NT-Xent of Chen et al. 2020, equation 1, in loops over the examples that count."""
    views = views / np.linalg.norm(views, axis=-1, keepdims=True)
    names = [(i, v) for i in np.flatnonzero(real) for v in (0, 1)]
    values = np.zeros(len(views))
    for i, v in names:
        similar = {n: np.exp(views[i, v] @ views[n] / temperature) for n in names if n != (i, v)}
        values[i] -= np.log(similar[i, 1 - v] / sum(similar.values())) / 2
    return values


@few
@given(st.integers(0, 1000), st.integers(1, 40), st.integers(2, 12), st.booleans())
def test_cross_entropy_of_probabilities_equals_scipy(seed, batch, classes, sharp):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(batch, 3, classes)).astype(np.float32) * 5
    targets = random.dirichlet(np.full(classes, 0.1 if sharp else 1.0), (batch, 3))
    targets = targets.astype(np.float32)
    terms = targets * special.log_softmax(logits.astype(np.float64), axis=-1)
    np.testing.assert_allclose(
        loss.cross_entropy(jnp.array(logits), targets), -terms.sum(-1), rtol=1e-4, atol=1e-4
    )
    right = (logits.argmax(-1) == targets.argmax(-1)).mean()
    assert finished(metrics.accuracy, logits, targets) == pytest.approx(right)
    table = reference.confusion_matrix(
        targets.argmax(-1).ravel(), logits.argmax(-1).ravel(), labels=range(classes)
    )
    np.testing.assert_array_equal(finished(metrics.confusion_matrix, logits, targets), table)


def test_info_nce_equals_the_published_formula_and_optax_and_padding_is_no_negative():
    views = np.random.default_rng(0).normal(size=(6, 2, 5)).astype(np.float32)
    everyone = np.ones(6)
    value = loss.info_nce(views, None, temperature=0.5)
    np.testing.assert_allclose(value, by_hand(views, everyone, 0.5), rtol=1e-4)
    pairs = views.swapaxes(0, 1).reshape(12, 5)
    expected = optax.ntxent(jnp.array(pairs), jnp.tile(jnp.arange(6), 2), 0.5)
    assert float(value.mean()) == pytest.approx(float(expected), rel=1e-4)
    real = np.arange(6) < 4
    padded = loss.info_nce(views, None, weight=real.astype(np.float32), temperature=0.5)
    np.testing.assert_allclose(padded[:4], loss.info_nce(views[:4], None, temperature=0.5))
    assert np.isfinite(padded).all()
    slope = jax.grad(lambda x: (loss.info_nce(x, None, weight=real) * real).sum())(views)
    assert np.isfinite(slope).all()
    assert not np.asarray(slope[4:]).any()
