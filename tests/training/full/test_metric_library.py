"""The metrics of training/library against scikit-learn, SciPy and NumPy."""

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as reference

from tests.helpers.metric_library import cases, drawn, summed
from tests.helpers.project import examples
from training.library import metrics

few = examples(15)


@few
@cases
def test_f1_iou_and_dice_of_yes_and_no_equal_scikit_learn(seed, count, labels):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, labels)).astype(np.float32)
    truth = (random.random((count, labels)) < 0.4).astype(np.int32)
    found, guess = summed(metrics.multilabel_f1, logits, truth), (logits > 0).astype(int)
    each = reference.f1_score(truth, guess, average=None, zero_division=np.nan)
    np.testing.assert_allclose([found[f"f1_{one}"] for one in range(labels)], each)
    assert found["f1_micro"] == pytest.approx(reference.f1_score(truth, guess, average="micro"))
    if truth.any() or guess.any():
        pair = (truth.ravel(), guess.ravel())
        assert summed(metrics.binary_iou, logits, truth)["m"] == pytest.approx(
            reference.jaccard_score(*pair)
        )
        assert summed(metrics.binary_dice, logits, truth)["m"] == pytest.approx(
            reference.f1_score(*pair)
        )


def test_perplexity_is_that_of_all_positions():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(7, 5, 4)).astype(np.float32), random.integers(0, 4, (7, 5))
    weight = (random.random((7, 5)) < 0.7).astype(np.float32)
    chances = np.take_along_axis(special.log_softmax(logits, -1), labels[..., None], -1)[..., 0]
    found = summed(metrics.perplexity, logits, labels.astype(np.int32), weight)["m"]
    assert found == pytest.approx(np.exp(-chances[weight > 0].mean()), rel=1e-5)
    found = summed(metrics.perplexity, logits, labels.astype(np.int32))["m"]
    assert found == pytest.approx(np.exp(-chances.mean()), rel=1e-5)


@few
@cases
def test_the_calibration_error_equals_the_published_formula(seed, count, classes):
    logits, labels = drawn(seed, count, classes, tied=False)
    chances = special.softmax(logits.astype(np.float64), axis=1)
    confidence, right = chances.max(1), chances.argmax(1) == labels
    bins, expected = np.ceil(confidence * 15), 0.0
    for one in np.unique(bins):
        inside = bins == one
        gap = abs(confidence[inside].mean() - right[inside].mean())
        expected += inside.sum() / count * gap
    found = summed(metrics.expected_calibration_error, logits, labels)["m"]
    assert found == pytest.approx(expected, abs=1e-5)
