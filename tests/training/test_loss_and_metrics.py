"""Losses and metrics against optax, SciPy, scikit-learn and NumPy."""

import itertools

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
from training.common.measure import measure
from training.tracking.metric_logger import MetricAccumulator


def logits_and_labels(seed, batch, classes, scale=5.0):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(batch, classes)).astype(np.float32) * scale
    return logits, random.integers(0, classes, batch).astype(np.int32)


shapes = given(st.integers(0, 1000), st.integers(1, 40), st.integers(2, 12))
few = examples(15)


@few
@shapes
def test_cross_entropy_equals_scipy(seed, batch, classes):
    logits, labels = logits_and_labels(seed, batch, classes)
    log_probabilities = special.log_softmax(logits.astype(np.float64), axis=1)
    for smoothing in (0.0, 0.1):
        wanted = (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes
        value = loss.cross_entropy(jnp.array(logits), labels, label_smoothing=smoothing)
        expected = -(wanted * log_probabilities).sum(1)
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_a_class_that_cannot_be_has_no_part_in_the_cross_entropy_of_probabilities():
    logits, targets = jnp.array([[0.0, 0.0, -jnp.inf]]), jnp.array([[0.5, 0.5, 0.0]])
    value, slope = jax.value_and_grad(lambda x: loss.cross_entropy(x, targets).sum())(logits)
    assert float(value) == pytest.approx(np.log(2))
    np.testing.assert_allclose(slope, np.zeros((1, 3)), atol=1e-7)


def test_probabilities_that_do_not_sum_to_one_give_no_number():
    logits, targets = np.eye(3, dtype=np.float32), np.ones((3, 3), np.float32)
    for function in (loss.cross_entropy, metrics.accuracy):
        assert np.isnan(function(logits, targets)).all()
    assert np.isnan(finished(metrics.macro_f1, logits, targets))


def test_labels_are_smoothed_in_training_alone():
    logits, labels = logits_and_labels(0, 8, 5)
    smoothed, plain, evaluated = (
        loss.cross_entropy(jnp.array(logits), labels, label_smoothing=share, train=train)
        for share, train in ((0.1, True), (0.0, True), (0.1, False))
    )
    assert (smoothed != plain).all()
    np.testing.assert_array_equal(evaluated, plain)


def test_cross_entropy_of_sequences_has_a_value_per_position():
    logits, labels = logits_and_labels(0, 12, 5)
    flat = loss.cross_entropy(jnp.array(logits), labels)
    shaped = loss.cross_entropy(jnp.array(logits).reshape(3, 4, 5), labels.reshape(3, 4))
    np.testing.assert_array_equal(flat.reshape(3, 4), shaped)


def test_losses_stay_finite_for_large_logits():
    logits = jnp.array([[1e4, -1e4], [-1e4, 1e4]])
    assert np.isfinite(loss.cross_entropy(logits, jnp.array([1, 1]))).all()
    assert np.isfinite(loss.binary_cross_entropy(logits, jnp.array([[1.0, 0.0]] * 2))).all()


@few
@shapes
def test_binary_cross_entropy_equals_optax(seed, batch, classes):
    logits, _ = logits_and_labels(seed, batch, classes)
    targets = np.random.default_rng(seed).random(logits.shape, np.float32)
    expected = optax.sigmoid_binary_cross_entropy(jnp.array(logits), targets)
    value = loss.binary_cross_entropy(jnp.array(logits), targets)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


@few
@shapes
def test_regression_losses_equal_numpy(seed, batch, classes):
    outputs, _ = logits_and_labels(seed, batch, classes)
    targets, _ = logits_and_labels(seed + 1, batch, classes)
    difference = outputs.astype(np.float64) - targets
    squared = loss.mean_squared_error(jnp.array(outputs), targets)
    np.testing.assert_allclose(squared, (difference**2).mean(1), rtol=1e-4)
    absolute = loss.mean_absolute_error(jnp.array(outputs), targets)
    np.testing.assert_allclose(absolute, np.abs(difference).mean(1), rtol=1e-4)


@pytest.mark.parametrize("function", [loss.mean_squared_error, loss.mean_absolute_error])
def test_regression_refuses_shapes_that_would_only_broadcast(function):
    with pytest.raises(ValueError, match=r"outputs have shape \(4, 1\), but targets \(4,\)"):
        function(jnp.zeros((4, 1)), jnp.zeros(4))


@few
@shapes
def test_metrics_equal_scikit_learn_whatever_the_batches(seed, batch, classes):
    logits, labels = logits_and_labels(seed, batch, classes)
    guess, names = logits.argmax(1), list(range(classes))
    assert finished(metrics.accuracy, logits, labels) == pytest.approx(
        reference.accuracy_score(labels, guess)
    )
    np.testing.assert_array_equal(
        finished(metrics.confusion_matrix, logits, labels),
        reference.confusion_matrix(labels, guess, labels=names),
    )
    assert finished(metrics.macro_f1, logits, labels) == pytest.approx(
        reference.f1_score(labels, guess, average="macro", zero_division=0.0)
    )


@few
@shapes
def test_top_k_accuracy_equals_numpy(seed, batch, classes):
    logits, labels = logits_and_labels(seed, batch, classes)
    k = min(3, classes)
    ranks = (-logits).argsort(1, kind="stable")[:, :k]
    expected = (ranks == labels[:, None]).any(1).mean()

    def top_k(logits, labels):
        return metrics.top_k_accuracy(logits, labels, k=k)

    assert finished(top_k, logits, labels) == pytest.approx(expected)


def test_weights_of_zero_leave_examples_out():
    logits, labels = logits_and_labels(0, 30, 4)
    weight = (np.arange(30) < 17).astype(np.float32)
    for metric in (metrics.accuracy, metrics.macro_f1, metrics.confusion_matrix):
        np.testing.assert_allclose(
            finished(metric, logits, labels, weight), finished(metric, logits[:17], labels[:17])
        )


def test_what_is_measured_of_a_batch_has_no_table_of_the_classes():
    logits = jax.ShapeDtypeStruct((256, 5000), jnp.float32)
    batch = {"targets": jax.ShapeDtypeStruct((256,), jnp.int32)}
    batch["weight"] = jax.ShapeDtypeStruct((256,), jnp.float32)
    every = {"m": metrics.confusion_matrix, "f": metrics.macro_f1}

    compiled = jax.jit(lambda *args: measure(every, *args)).lower(logits, batch).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes + memory.output_size_in_bytes < 2**20


def test_sums_survive_json_to_the_bit():
    import json

    sums = MetricAccumulator()
    random = np.random.default_rng(0)
    for _ in range(10):
        sums.add({"a": (random.random(), 3), "b": (random.random((2, 2)), 1.5)})
    again = MetricAccumulator(json.loads(json.dumps(sums.to_json())))
    assert again.to_json() == sums.to_json()


def test_focal_loss_equals_the_formula_and_that_of_optax_for_two_classes():
    logits, labels = logits_and_labels(0, 20, 4)
    right = special.softmax(logits.astype(np.float64), axis=1)[np.arange(20), labels]
    for gamma in (0.0, 2.0, 0.5):
        value = loss.focal(jnp.array(logits), labels, gamma=gamma)
        np.testing.assert_allclose(value, -((1 - right) ** gamma) * np.log(right), 1e-3, 1e-6)
    two = np.stack([np.zeros(20), logits[:, 0]], 1)  # softmax of (0, x) is the sigmoid of x
    expected = optax.sigmoid_focal_loss(jnp.array(logits[:, 0]), labels % 2, gamma=2.0)
    np.testing.assert_allclose(loss.focal(jnp.array(two), labels % 2), expected, rtol=1e-4)


def test_dice_loss_is_that_of_scikit_learns_f1_where_the_network_is_sure():
    random = np.random.default_rng(0)
    labels, guess = random.integers(0, 3, (2, 4, 8, 8))
    sure = np.eye(3, dtype=np.float32)[guess] * 1000
    scores = [
        reference.f1_score(one.ravel(), other.ravel(), average="macro")
        for one, other in zip(labels, guess, strict=True)
    ]
    np.testing.assert_allclose(loss.dice(sure, labels, smooth=0.0), 1 - np.array(scores), rtol=1e-5)
    mask, found = (labels > 0).astype(np.float32), guess > 0
    scores = [
        reference.f1_score(one.ravel(), other.ravel())
        for one, other in zip(mask, found, strict=True)
    ]
    values = loss.dice(np.where(found, 1000.0, -1000.0), mask, smooth=0.0)
    np.testing.assert_allclose(values, 1 - np.array(scores), rtol=1e-5)


def test_ctc_sums_over_all_alignments():
    """Two labels in three steps, by the sum over every path; and padding changes nothing."""
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(2, 3, 4)), np.array([[1, 2], [3, 0]])
    chances = special.softmax(logits, axis=-1)
    paths = [[], []]
    for path in itertools.product(range(4), repeat=3):
        merged = [one for one, _ in itertools.groupby(path) if one]
        for example in (0, 1):
            if merged == [one for one in labels[example] if one]:
                chance = np.prod(chances[example][np.arange(3), path])
                paths[example].append(chance)
    expected = [-np.log(sum(one)) for one in paths]
    np.testing.assert_allclose(loss.ctc(jnp.array(logits), labels), expected, rtol=1e-4)
    longer = {
        "logits": np.concatenate([logits, random.normal(size=(2, 2, 4))], 1),
        "padding": np.array([[0, 0, 0, 1, 1]] * 2, np.float32),
    }
    np.testing.assert_allclose(loss.ctc(longer, labels), expected, rtol=1e-4)
