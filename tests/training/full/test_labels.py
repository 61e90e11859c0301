"""Labels and sequences in whole runs: trained right, reported, resumed."""

import csv
import json

import numpy as np
import pytest

import test as test_script
import train
from tests.helpers.labelled import both
from tests.helpers.project import same_arrays
from training.checkpoint.naming import latest
from training.checkpoint.reading import read
from training.engine.evaluation import predict
from utils import UserError


def test_what_is_ignored_by_its_weight_trains_as_without_it(fit_labelled):
    run = fit_labelled("Points", "ignoring", kind="ignored")
    assert np.isfinite(run.metrics["test_loss"])
    counted = np.arange(48) % 4 != 0
    right = run.predict(run.experiment.loaders["test"].dataset.x).argmax(1)
    expected = (right == run.experiment.loaders["test"].dataset.y)[counted].mean()
    assert run.metrics["test_accuracy"] == pytest.approx(expected)


def test_predictions_are_of_their_examples_whatever_is_ignored_or_shuffled(fit_labelled):
    """Examples of weight 0 are left out, and the others keep their index and their picture."""
    run = fit_labelled("Points", "ignoring", kind="ignored", overrides=both("shuffle=true"))
    _, predictions = predict(run.experiment, run.params)
    dataset = run.experiment.loaders["test"].dataset
    counted = np.flatnonzero(np.arange(48) % 4)
    np.testing.assert_array_equal(predictions.indices, counted)
    np.testing.assert_array_equal(predictions.targets, dataset.y[counted])
    np.testing.assert_allclose(predictions.logits, run.predict(dataset.x[counted]), rtol=1e-5)
    np.testing.assert_array_equal(predictions.images(5), dataset.x[counted[5]])
    assert test_script.main(["-w", str(run.folder), "--predictions"]) == 0
    with open(run.folder / "predictions.csv", newline="") as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == counted.tolist()


@pytest.mark.parametrize(
    ("kind", "classes"),
    [("text", '["class 0", "class 1", "class 2"]'), ("from one", '{"1": "a", "2": "b", "3": "c"}')],
)
def test_values_of_labels_are_mapped_and_the_run_keeps_the_mapping(fit_labelled, kind, classes):
    plain = fit_labelled()
    run = fit_labelled(kind=kind, overrides=both(f"classes={classes}"))
    for name in ("test_loss", "test_accuracy", "epoch_train_loss"):
        assert run.metrics[name] == plain.metrics[name]
    kept = json.loads((run.folder / "config.json").read_text())
    assert kept["data_loader"]["test"]["args"]["classes"] == json.loads(classes)
    assert test_script.main(["-w", str(run.folder), "--predictions"]) == 0
    values = json.loads(classes)
    names = list(values.values()) if isinstance(values, dict) else values
    with open(run.folder / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = run.experiment.loaders["test"].dataset.y
    assert [row["target"] for row in rows] == [names[label] for label in labels]


# Sequences -------------------------------------------------------------------------------------


def log_of(run):
    return (run.folder / "train.log").read_text()


NETWORK = ['model={"name": "tests.helpers.labelled:of_positions"}']


def test_padded_sequences_train_are_evaluated_reported_and_resumed(fit_labelled):
    run = fit_labelled("Sequences", "padded", overrides=NETWORK + both("shuffle=true"))
    assert "was compiled for another shape of batches, now for 2" in log_of(run)
    assert (run.folder / "report.html").exists()
    dataset = run.experiment.loaders["test"].dataset
    positions = [dataset[index] for index in range(48)]
    hits = [run.predict(x[None])[0].argmax(-1) == y for x, y in positions]
    assert run.metrics["test_accuracy"] == pytest.approx(np.concatenate(hits).mean())
    assert test_script.main(["-w", str(run.folder)]) == 0
    again = train.fit(resume=run.folder, training__epochs=3)
    whole = fit_labelled("Sequences", "padded", overrides=[*NETWORK, *both("shuffle=true"),
                                                  "training.epochs=3"])  # fmt: skip
    assert same_arrays(read(latest(again.folder))[0], read(latest(whole.folder))[0])
    assert again.metrics == whole.metrics


@pytest.mark.parametrize("collate", ["padded", "bucketed"])
def test_several_updates_in_a_call_are_of_batches_of_one_shape(fit_labelled, collate):
    settings = NETWORK + both("shuffle=true")
    one, several = (
        fit_labelled(
            "Sequences", collate, overrides=[*settings, f"training.steps_per_call={steps}"]
        )
        for steps in (1, 4)
    )
    assert one.metrics == several.metrics
    assert same_arrays(read(latest(one.folder))[0], read(latest(several.folder))[0])


def test_bucketed_lengths_are_compiled_once_each(fit_labelled):
    run = fit_labelled("Sequences", "bucketed", overrides=[*NETWORK, "training.epochs=3"])
    lengths = {batch["inputs"].shape[1] for batch in run.experiment.loaders["train"].batches(1)}
    assert run.experiment.update._cache_size() == len(lengths)
    assert log_of(run).count("update was compiled for another shape") == len(lengths) - 1
    assert "compiled once more" not in log_of(run)


def test_probabilities_of_one_train_as_labels_do_and_those_of_several_labels_are_refused(
    fit_labelled,
):
    labels, probabilities = (fit_labelled(kind=kind).metrics for kind in ("labels", "one-hot"))
    assert probabilities == pytest.approx(labels, rel=1e-5)
    with pytest.raises(UserError, match=r"the loss of .* is not: .* probabilities, which must sum"):
        fit_labelled(kind="many floats")
