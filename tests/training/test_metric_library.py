"""The metrics of training/library against scikit-learn, SciPy and NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from sklearn import metrics as reference

from tests.helpers.metric_library import cases, drawn, summed
from tests.helpers.project import examples
from training.library import metrics

few = examples(15)


@few
@cases
def test_f1_iou_and_dice_of_classes_equal_scikit_learn(seed, count, classes):
    logits, labels = drawn(seed, count, classes)
    guess, names = logits.argmax(1), list(range(classes))
    occurs = np.isin(names, np.concatenate([labels, guess]))
    f1, iou, dice = (summed(one, logits, labels) for one in (metrics.f1, metrics.iou, metrics.dice))
    wanted = reference.f1_score(labels, guess, average=None, labels=names, zero_division=np.nan)
    each = np.where(occurs, wanted, np.nan)
    np.testing.assert_allclose([f1[f"f1_{one}"] for one in names], each)
    np.testing.assert_allclose([dice[f"dice_{one}"] for one in names], each)
    assert f1["f1_macro"] == pytest.approx(each[occurs].mean()) == dice["dice"]
    assert f1["f1_micro"] == pytest.approx(reference.f1_score(labels, guess, average="micro"))
    overlap = reference.jaccard_score(labels, guess, average=None, labels=names, zero_division=0)
    np.testing.assert_allclose(
        [iou[f"iou_{one}"] for one in names], np.where(occurs, overlap, np.nan)
    )
    assert iou["iou"] == pytest.approx(overlap[occurs].mean())


@few
@cases
def test_auroc_and_average_precision_equal_scikit_learn(seed, count, classes):
    logits, labels = drawn(seed, count, classes)
    chances = special.softmax(logits.astype(np.float64), axis=1)
    areas, precisions = metrics.auroc(logits, labels), metrics.average_precision(logits, labels)
    expected = [], []
    for one in range(classes):
        truth = labels == one
        both = truth.any() and not truth.all()
        expected[0].append(reference.roc_auc_score(truth, chances[:, one]) if both else np.nan)
        expected[1].append(
            reference.average_precision_score(truth, chances[:, one]) if truth.any() else np.nan
        )
    for name, found, wanted in zip(
        ("auroc", "average_precision"), (areas, precisions), expected, strict=True
    ):
        np.testing.assert_allclose([found[f"{name}_{one}"] for one in range(classes)], wanted)
        known = np.array(wanted)[~np.isnan(wanted)]
        np.testing.assert_allclose(found[name], known.mean() if len(known) else np.nan)


def test_auroc_takes_yes_and_no_in_every_form_alike():
    random = np.random.default_rng(0)
    scores, truth = random.normal(size=40).round(1), (random.random(40) < 0.3).astype(np.int32)
    expected = reference.roc_auc_score(truth, scores)
    two = np.stack([np.zeros(40), scores], 1)
    for outputs, targets in [(scores, truth), (scores[:, None], truth[:, None]), (two, truth)]:
        assert metrics.auroc(outputs, targets) == {"auroc": pytest.approx(expected)}
    many = metrics.auroc(np.stack([scores, -scores], 1), np.stack([truth, truth], 1))
    assert many == pytest.approx({"auroc": 0.5, "auroc_0": expected, "auroc_1": 1 - expected})


def test_a_split_of_a_single_class_has_no_auroc():
    found = metrics.auroc(np.eye(3), np.zeros(3, np.int32))
    assert np.isnan(list(found.values())).all()


@few
@given(st.integers(0, 1000), st.integers(2, 60), st.booleans())
def test_r2_and_correlations_equal_scikit_learn_and_scipy(seed, count, tied):
    random = np.random.default_rng(seed)
    targets = random.normal(size=(count, 2)) + 1000
    outputs = targets + random.normal(size=(count, 2))
    if tied:
        outputs = outputs.round()
    assert metrics.r2(outputs, targets) == pytest.approx(reference.r2_score(targets, outputs))
    for ours, theirs in ((metrics.pearson, stats.pearsonr), (metrics.spearman, stats.spearmanr)):
        if (np.ptp(outputs, 0) > 0).all():
            expected = np.mean([theirs(outputs[:, i], targets[:, i])[0] for i in (0, 1)])
            assert ours(outputs, targets) == pytest.approx(expected)
    assert np.isnan([one(np.ones(3), np.ones(3)) for one in (metrics.r2, metrics.pearson)]).all()
    with pytest.raises(ValueError, match="outputs have shape"):
        metrics.r2(outputs[:, :1], targets[:, 0])
