"""Labels, one-hot targets and sequences in whole runs: trained right, or refused in words."""

import numpy as np
import pytest

from tests.helpers import labelled
from training.engine.evaluation import Predictions
from training.report.classification import summarize
from utils import UserError


@pytest.mark.parametrize(
    ("args", "overrides", "words"),
    [
        ({"kind": "ignored"}, ["model.args.classes=128"],
         ["the training data: example 0 has the label -100 (int32)", "0 to 127", "weight 0"]),
        ({"kind": "from one"}, [], ["has the label 3", "0 to 2", "loader's argument `classes`"]),
        ({"kind": "text"}, [], ["targets of a batch are <U7", "`classes`", "'class 0', 'class 1'"]),
        ({"kind": "many"}, labelled.both("batch_size=3"),
         ["softmax_cross_entropy and one_hot_accuracy"]),
        ({"kind": "many"}, ["training.loss=softmax_cross_entropy"], ["accuracy", "One-hot"]),
        ({"kind": "many", "classes": 8}, ["training.loss=binary_cross_entropy",
          "model.args.classes=8", 'training.metrics=["macro_f1"]'],
         ["macro_f1", "binary_cross_entropy and binary_accuracy"]),
        ({}, [*labelled.both("batch_size=3"), "training.loss=softmax_cross_entropy"],
         ["softmax_cross_entropy of outputs float32 (3, 3), targets int32 (3,)", "cross_entropy"]),
    ],
)  # fmt: skip
def test_targets_that_do_not_fit_are_refused_before_anything_is_trained(
    fit_labelled, tmp_path, args, overrides, words
):
    with pytest.raises(UserError) as error:
        fit_labelled(overrides=overrides, **args)
    assert all(one in str(error.value) for one in words), error.value
    assert not list(tmp_path.glob("saved/*/*"))


@pytest.mark.parametrize("count", [12, 20, 256, 300])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64, np.uint64])
def test_the_report_counts_labels_of_any_type_alike(count, dtype):
    labels = np.arange(min(count, 128)).repeat(2)
    logits = np.eye(count, dtype=np.float32)[(labels + labels % 3) % count]
    plain, other = (summarize(Predictions(logits, labels.astype(kind))) for kind in (int, dtype))
    for name in ("matrix", "confusions", "wrong"):
        assert str(plain[name]) == str(other[name])
    assert plain["wrong"] == np.count_nonzero(labels % 3)
