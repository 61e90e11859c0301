"""Outputs and targets that do not belong together are refused, whatever the size of the batch."""

import functools

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.project import by_set
from training import loss, metrics
from training.common.measure import FunctionError
from training.engine.user_code import wrap_user_function

LABELLED = [
    loss.cross_entropy, metrics.accuracy, metrics.confusion_matrix, metrics.macro_f1,
    functools.partial(metrics.top_k_accuracy, k=1), optax.softmax_cross_entropy_with_integer_labels,
]  # fmt: skip
EQUAL = [
    loss.binary_cross_entropy, loss.mean_squared_error, loss.mean_absolute_error,
    metrics.binary_accuracy, metrics.one_hot_accuracy, optax.squared_error, optax.huber_loss,
    optax.sigmoid_binary_cross_entropy, optax.softmax_cross_entropy, optax.log_cosh,
    optax.cosine_distance, optax.sigmoid_focal_loss, optax.hinge_loss, optax.kl_divergence,
]  # fmt: skip
SHAPES = st.lists(st.sampled_from([1, 2, 3, 5]), max_size=2)


def difference(outputs, targets):
    return outputs - targets


def mean_of_difference(outputs, targets):
    return jnp.abs(outputs - targets).reshape(len(outputs), -1).mean(-1)


def equality(outputs, targets):
    return (outputs.argmax(-1) == targets).astype(jnp.float32)


def contrast(outputs, targets):
    """Compares all pairs on purpose, as contrastive losses do."""
    same = (targets[:, None] == targets[None, :]).astype(jnp.float32)
    return optax.softmax_cross_entropy(outputs @ outputs.T, same / same.sum(-1, keepdims=True))


def likelihood(outputs, targets):
    """Of a normal distribution: two outputs stand for one target."""
    mean, log_variance = outputs[:, :1], outputs[:, 1:]
    return (log_variance + jnp.square(targets - mean) * jnp.exp(-log_variance))[:, 0]


def scaled(outputs, targets):
    """Has a number for each column, which NumPy lays along the last axis."""
    return (jnp.square(outputs - targets) * jnp.arange(1.0, 4.0)).sum(-1)


def one_column(outputs, targets):
    return jnp.square(outputs[:, 0] - targets)


def of_tokens(outputs, targets):
    """The outputs of all positions in one axis."""
    return loss.cross_entropy(outputs.reshape(*targets.shape, -1), targets)


def call(function, outputs, targets, dtype=np.float32):
    random = np.random.default_rng(0)
    outputs = random.normal(size=outputs).astype(np.float32)
    targets = random.integers(0, 2, targets).astype(dtype)
    return wrap_user_function(function, "it", "loss", "training.loss")(outputs, targets)


@pytest.mark.parametrize("batch", [1, 3, 4])
@pytest.mark.parametrize("function", LABELLED)
def test_labels_stand_beside_a_vector_of_outputs_for_each(function, batch):
    assert call(function, (batch, 3), (batch,), np.int32).shape[0] == batch
    for outputs, targets in [((batch, 3), (batch, 3)), ((batch, 3), (batch, 1)),
                             ((batch, 2, 3), (batch, 3)), ((batch,), (batch,))]:  # fmt: skip
        with pytest.raises(FunctionError, match=r"training\.loss: it of outputs"):
            call(function, outputs, targets, np.int32)


@given(function=st.sampled_from(EQUAL), outputs=SHAPES, targets=SHAPES, batch=st.integers(1, 6))
@settings(max_examples=by_set(20, 300))
def test_outputs_and_targets_of_other_shapes_are_refused(function, outputs, targets, batch):
    shapes = (batch, *outputs), (batch, *targets)
    vectors = optax.cosine_distance, optax.softmax_cross_entropy, optax.kl_divergence
    if outputs == targets and (outputs or function not in (*vectors, metrics.one_hot_accuracy)):
        assert call(function, *shapes).shape[0] == batch
        return
    with pytest.raises(FunctionError):
        call(function, *shapes)


@pytest.mark.parametrize(
    ("function", "outputs", "targets"),
    [
        (difference, (4, 1), (4,)),
        (difference, (4,), (4, 1)),
        (difference, (4,), (4, 4)),  # batch and columns are one number by chance
        (difference, (1, 4), (4,)),
        (difference, (1,), (4,)),
        (mean_of_difference, (4, 1), (4,)),  # the mean hides the table
        (mean_of_difference, (4,), (4, 1)),
        (mean_of_difference, (4, 4), (4,)),
        (equality, (4, 4), (4, 4)),
        (equality, (1, 3), (4,)),
    ],
)
def test_a_function_of_ones_own_that_compares_examples_by_broadcasting_is_refused(
    function, outputs, targets
):
    with pytest.raises(FunctionError, match=r"training\.loss: it"):
        call(function, outputs, targets)


@pytest.mark.parametrize(
    ("function", "outputs", "targets", "dtype"),
    [
        (contrast, (4, 2), (4,), np.int32),
        (likelihood, (4, 2), (4, 1), np.float32),
        (scaled, (4, 3), (4, 3), np.float32),
        (one_column, (4, 1), (4,), np.float32),
        (one_column, (4, 1), (4,), np.int32),
        (of_tokens, (12, 5), (4, 3), np.int32),
    ],
)
def test_a_function_of_ones_own_that_means_what_it_does_is_left_alone(
    function, outputs, targets, dtype
):
    expected = function(np.ones(outputs, np.float32), np.ones(targets, dtype)).shape
    assert call(function, outputs, targets, dtype).shape == expected


def test_the_message_says_which_loss_and_metric_fit():
    with pytest.raises(FunctionError, match="softmax_cross_entropy and one_hot_accuracy"):
        call(metrics.accuracy, (3, 3), (3, 3), np.int32)
    with pytest.raises(FunctionError, match="binary_cross_entropy and binary_accuracy"):
        call(loss.cross_entropy, (3, 3), (3, 3), np.int32)
    with pytest.raises(FunctionError, match=r"\(batch, 1\) with \(batch,\).*test_shapes\.py:"):
        call(mean_of_difference, (4, 1), (4,))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int64, np.uint64])
def test_labels_of_any_type_count_the_same(dtype):
    """A small type overflows where it is counted on: one_hot of uint8 has class 44 twice of 300."""
    labels = np.array([0, 44, 100, 127])
    logits = np.eye(300, dtype=np.float32)[labels] * 9
    for function in LABELLED:
        wrapped = wrap_user_function(function, "it", "loss", "training.loss")
        np.testing.assert_array_equal(wrapped(logits, labels.astype(dtype)),
                                      wrapped(logits, labels.astype(np.int32)))  # fmt: skip
    counts = metrics.confusion_matrix(logits, labels.astype(dtype)).dense().sum(0)
    np.testing.assert_array_equal(counts, np.diag(np.bincount(labels, minlength=300)))


def test_yes_and_no_are_two_classes():
    labels = np.array([True, False, True])
    values = wrap_user_function(metrics.accuracy, "it", "metric", "x")(np.eye(3, 2), labels)
    np.testing.assert_array_equal(values, (np.eye(3, 2).argmax(1) == labels))


def test_the_confusion_matrix_of_sequences_counts_positions():
    random = np.random.default_rng(1)
    logits, labels = random.normal(size=(4, 7, 3)), random.integers(0, 3, (4, 7))
    total = metrics.confusion_matrix(logits, labels).dense().sum(0)
    expected = np.zeros((3, 3))
    np.add.at(expected, (labels, logits.argmax(-1)), 1)
    np.testing.assert_array_equal(metrics.confusion_matrix.compute(total, 28), expected)


def test_the_loss_of_what_is_no_class_is_no_number():
    """NumPy would count a label of -1 from the end, and answer with the loss of the last class."""
    logits, labels = np.zeros((5, 3), np.float32), np.array([0, 2, -1, 3, -100])
    expected = [np.log(3), np.log(3), np.nan, np.nan, np.nan]
    np.testing.assert_allclose(loss.cross_entropy(logits, labels), expected, rtol=1e-6)
