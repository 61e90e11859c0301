"""The example in examples/folds: folds, a callback that records and stops, a tracker of its own."""

import numpy as np
import pytest
from PIL import Image

import test as test_command
import train
from data_loader.dataloader import DataLoader
from examples.folds.folds import Digits
from inference import convert_tflite
from tests.helpers.examples import folds_config
from tests.helpers.project import ROOT
from tests.helpers.tracking import json_lines


@pytest.fixture
def path(tmp_path, write_config, monkeypatch):
    monkeypatch.chdir(ROOT)
    return write_config(folds_config(tmp_path / "saved"))


def test_each_picture_is_held_out_once_and_every_digit_evenly():
    digits = Digits("train")
    found = [DataLoader(digits, 10, fold=fold, folds=3).validation().indices for fold in range(3)]
    assert sorted(np.concatenate(found)) == list(range(1500))
    counts = np.array([np.bincount(digits.labels[one]) for one in found])
    assert np.ptp(counts, axis=0).max() <= 1


def rows(folder):
    """The rows of the example's table: (step, epoch, accuracy)."""
    lines = (folder / "accuracy.md").read_text().splitlines()[2:]
    return [tuple(float(cell) for cell in line.strip("|").split("|")) for line in lines]


def test_a_fold_is_trained_resumed_to_the_bit_evaluated_and_exported(path, tmp_path):
    run = train.fit(path, overrides=["fold=1"])
    folder, whole = run.folder, (run.folder / "metrics.jsonl").read_bytes()
    recorded = [(folder / name).read_bytes() for name in ("media.jsonl", "accuracy.md")]
    train.fit(resume=folder / "checkpoint-epoch_1.params")
    assert (folder / "metrics.jsonl").read_bytes() == whole
    assert [(folder / name).read_bytes() for name in ("media.jsonl", "accuracy.md")] == recorded

    lines = [one for one in json_lines(folder / "metrics.jsonl") if "validation_accuracy" in one]
    assert rows(folder) == [
        (one["step"], one["epoch"], pytest.approx(one["validation_accuracy"], abs=5e-5))
        for one in lines
    ]
    held_out = run.experiment.loaders["validation"]
    images, labels = held_out.dataset.__getitems__(held_out.indices)
    wrong = run.predict(images).argmax(1) != labels
    assert 1 - wrong.mean() == pytest.approx(lines[-1]["validation_accuracy"], abs=1e-6)
    shown = np.asarray(Image.open(max((folder / "images" / "mistakes").iterdir())))
    np.testing.assert_array_equal(shown[:, :8], images[wrong][0, 0])
    assert "<h2>Recorded</h2>" in (folder / "report.html").read_text()

    assert test_command.main(["-w", str(folder)]) == 0
    arguments = ["--name", "fold", "-w", str(folder), "--into", str(tmp_path)]
    assert convert_tflite.main(arguments) == 0


def test_the_callback_ends_a_run_that_is_good_enough_with_its_report(path, tmp_path, capsys):
    assert train.main(["-c", path, "training.callbacks.0.args.enough=0.2"]) == 0
    output = capsys.readouterr().out
    assert "mistakes are few enough" in output
    (report,) = tmp_path.glob("saved/*/*/report.html")
    assert len(rows(report.parent)) == 1
