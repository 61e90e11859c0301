"""Weights for the classes: which they are, what they change, and what is refused."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from data_loader.dataloader import DataLoader
from tests.helpers.data_sets import WholeNumbers
from training.engine.class_weights import class_weights
from utils import UserError


def loader_of(labels, classes=None, **arguments):
    dataset = WholeNumbers(len(labels))
    dataset.labels = np.asarray(labels)
    if classes:
        dataset.classes = classes
    return DataLoader(dataset, 1, **arguments)


def test_auto_equals_scikit_learns_balanced():
    labels = np.random.default_rng(0).integers(0, 5, 200) // 2
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights("auto", loader_of(labels), "here"), expected, 1e-6)


def test_auto_counts_only_what_is_trained_with():
    labels = np.random.default_rng(0).integers(0, 3, 100)
    loader = loader_of(labels, validation_split=0.5)
    trained = [int(batch["inputs"][0, 0]) for batch in loader.batches(1)]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels[trained])
    np.testing.assert_allclose(class_weights("auto", loader, "here"), expected, 1e-6)


def test_a_class_without_an_example_is_reported(caplog):
    weights = class_weights("auto", loader_of([0, 0, 2], ["cat", "dog", "eel"]), "here")
    assert "class 'dog' has no example to train with" in caplog.text
    assert np.isfinite(weights).all()


@pytest.mark.parametrize(
    ("wanted", "labels", "classes", "message"),
    [
        ([1.0, 2.0], [0, 1, 2], ["a", "b", "c"], "2 weights, but there are 3 classes"),
        ([1.0, -2.0], [0, 1], ["a", "b"], "expected numbers of at least 0"),
        ([1.0, float("inf")], [0, 1], None, "expected numbers of at least 0"),
        ([0.0, 0.0], [0, 1], None, "not all 0"),
        ("auto", [0.0, 1.0], None, r"the targets are float64 \(2,\)"),
        ("auto", [0, -100], None, "the labels go from -100 to 0"),
        ("auto", [0, 3], ["a", "b"], "from 0 to 3; expected 0 to 1"),
        ("auto", [[0, 1], [1, 0]], None, r"int64 \(2, 2\)"),
    ],
)
def test_weights_that_fit_no_classes_are_refused(wanted, labels, classes, message):
    with pytest.raises(UserError, match=message):
        class_weights(wanted, loader_of(labels, classes), "here")


def test_the_number_of_weights_must_be_that_of_the_outputs(run, config, capsys):
    config["training"]["class_weights"] = [1.0] * 12
    assert run("--check")[0] == 1
    assert "12 weights, but there are 10" in capsys.readouterr().err


def test_targets_that_are_no_classes_are_refused(run, config, capsys):
    config["training"] |= {"class_weights": [1.0, 1.0], "loss": "mean_squared_error"}
    for split in ("train", "test"):
        config["data_loader"][split]["args"] = {
            "dataset": {"name": "tests.training.engine.test_class_weights:Floats", "args": {}},
            "batch_size": 4,
        }
    config["model"] = {"name": "mlp", "args": {"feat_dims": [4], "classes": 2}}
    config["data_loader"]["preprocess"] = config["data_loader"]["augment"] = None
    config["training"] |= {"metrics": [], "monitor": "min test_loss"}
    assert run("--check")[0] == 1
    assert "the targets of a batch are float32 (4, 2); expected classes" in capsys.readouterr().err


class Floats:
    """Two numbers to predict."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return np.zeros(3, np.float32), np.zeros(2, np.float32)
