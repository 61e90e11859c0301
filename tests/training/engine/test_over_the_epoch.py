"""Metrics over the epoch, and the outputs that are kept for them."""

import csv
import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import test as test_script
from tests.helpers import epoch_metrics, labelled
from tests.helpers.project import by_set
from training.engine import kept_outputs
from training.engine.kept_outputs import KeptOutputs
from utils import UserError


def metrics(*names):
    named = [f'"tests.helpers.epoch_metrics:{name}"' for name in names]
    return f"training.metrics=[{', '.join(named)}]"


@pytest.fixture(autouse=True)
def forget():
    epoch_metrics.SEEN.clear()


def outputs_of(run, count=48):
    data = labelled.Points(count=count)
    return np.asarray(run.predict(data.x)), data.y


@pytest.mark.parametrize("size", by_set([7], [5, 7, 48]))
def test_a_metric_gets_every_example_once_and_in_order_without_padding(fit_labelled, size):
    run = fit_labelled(
        overrides=[metrics("spread", "examples"), *labelled.both(f"batch_size={size}")]
    )
    outputs, targets = epoch_metrics.SEEN[-1]
    expected, labels = outputs_of(run)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)
    np.testing.assert_array_equal(targets, labels)
    assert run.metrics["test_margin"] == pytest.approx(np.ptp(expected), rel=1e-5)
    assert run.metrics["test_examples"] == 48
    assert "epoch_train_examples" not in run.metrics


def test_the_same_number_as_of_scikit_learn_chooses_the_best_epoch(fit_labelled):
    run = fit_labelled(
        overrides=['training.metrics=["auroc", "f1"]', "training.monitor=max test_auroc_2"]
    )
    outputs, labels = outputs_of(run)
    chances = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    wanted = roc_auc_score(labels, chances, multi_class="ovr", average="macro")
    assert run.metrics["test_auroc"] == pytest.approx(wanted)
    assert run.progress.best == pytest.approx(roc_auc_score(labels == 2, chances[:, 2]))
    assert {"test_f1_macro", "test_f1_0", "epoch_train_f1_micro"} <= run.metrics.keys()
    assert (run.folder / "checkpoint-best.params").exists()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["failing"], ["the test split", "training.metrics.0: failing of outputs float32 (48, 3)",
                       "tests/helpers/epoch_metrics.py:"]),
        (["a_text"], ["a_text of outputs", "a_text is str 'good'; expected a number"]),
        (["examples", "called_examples"], ["measures 'test_examples', and so does another"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_nothing_trained_is_lost(fit_labelled, tmp_path, names, words):
    with pytest.raises(UserError) as error:
        fit_labelled(overrides=[metrics(*names)])
    assert all(one in str(error.value) for one in words), error.value
    (folder,) = (tmp_path / "saved" / "Labelled").iterdir()
    assert list(folder.glob("checkpoint-*.params"))


def test_a_name_that_no_metric_has_is_refused_after_the_first_evaluation(fit_labelled):
    with pytest.raises(UserError, match="no 'test_margn' is measured; did you mean 'test_margin'"):
        fit_labelled(overrides=[metrics("spread"), "training.monitor=max test_margn"])


def test_values_by_name_and_vectors_are_logged_by_name(fit_labelled):
    run = fit_labelled(
        overrides=[metrics("of_two", "per_class"), "training.monitor=max test_per_class_1"]
    )
    outputs, _ = outputs_of(run)
    assert run.metrics["test_first"] == pytest.approx(outputs[:, 0].mean(), rel=1e-4)
    assert run.metrics["test_both"] == pytest.approx(outputs[:, :2].mean(), rel=1e-4)
    found = [run.metrics[f"test_per_class_{one}"] for one in range(3)]
    np.testing.assert_allclose(found, outputs.mean(0), rtol=1e-4)


def test_a_compute_that_fails_late_loses_nothing(fit_labelled, tmp_path):
    with pytest.raises(
        UserError, match=r"failing_late: its result of the sum \(3,\).*metrics\.py:"
    ):
        fit_labelled(overrides=[metrics("failing_late")])
    (folder,) = (tmp_path / "saved" / "Labelled").iterdir()
    assert list(folder.glob("checkpoint-*.params"))


@pytest.mark.parametrize("limit", [2**30, 1000])
def test_what_is_kept_is_what_was_given_in_memory_and_in_a_file(monkeypatch, limit):
    monkeypatch.setattr(kept_outputs, "MOST_IN_MEMORY", limit)
    random, kept, given = np.random.default_rng(0), KeptOutputs(), []
    for count in (5, 1, 0, 40, 300):
        tree = {"a": random.normal(size=(count, 3)), "b": (np.arange(count),)}
        given.append(tree)
        kept.add(tree)
    joined = kept.join()
    assert isinstance(joined["a"], np.memmap) == (limit == 1000)
    np.testing.assert_array_equal(joined["a"], np.concatenate([one["a"] for one in given]))
    np.testing.assert_array_equal(joined["b"][0], np.concatenate([one["b"][0] for one in given]))
    with pytest.raises(UserError, match="those of the first batch"):
        kept.add({"a": np.zeros((1, 4)), "b": (np.zeros(1, int),)})


def test_beyond_the_limit_memory_does_not_grow(monkeypatch):
    monkeypatch.setattr(kept_outputs, "MOST_IN_MEMORY", 2**20)
    chunk, kept = np.ones((1000, 128)), KeptOutputs()
    tracemalloc.start()
    for _ in range(30):
        kept.add(chunk)
    assert kept.join().sum() == 30 * chunk.size
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


def test_predictions_of_a_network_that_is_no_classifier(fit_labelled, capsys):
    run = fit_labelled(
        kind="many floats",
        overrides=["training.loss=mean_squared_error", "training.metrics=[]"],
    )
    assert test_script.main(["-w", str(run.folder), "--predictions", "training.epochs=2"]) == 0
    with open(run.folder / "predictions.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["index", *(f"{one}_{i}" for one in ("output", "target") for i in range(3))]
    data = labelled.Points(kind="many floats")
    expected = np.concatenate([run.predict(data.x), data.many], 1)
    np.testing.assert_allclose(np.array(rows, float)[:, 1:], expected, rtol=1e-4, atol=1e-6)
    assert test_script.main(["-w", str(run.folder), "--predictions", "p.txt"]) == 1
    assert "ends in .csv, .parquet, .npz" in capsys.readouterr().err
