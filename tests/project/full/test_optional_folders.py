"""Each optional folder can be deleted by itself, and each works without the others."""

import json

import pytest

from new_project import OPTIONAL
from tests.helpers.copies import copy_without

COMMANDS = {  # of each optional folder: what it is for, and what shows that it was done
    "training/debug": (["train.py", "--check"], "All is well."),
    "training/report": (["test.py", "--predictions"], "predictions.csv"),
    "training/sweep": (["-m", "training.sweep", "seed=[0,1]"], "[2/2] seed=1: test_loss"),
    "inference": (["inference/convert_tflite.py", "--name", "mine"], "mine.onnx"),
    "training/weights": (
        ["-m", "training.weights.export_weights", "latest", "--to", "torch"],
        "PyTorch's names",
    ),
    "training/provenance": (["train.py", "--resume", "latest", "seed=1"], "seed: was 0, is 1"),
}


def test_without_all_of_them_a_run_is_resumed_evaluated_and_stopped_where_it_is_not_finite(
    tmp_path, script
):
    project = copy_without(tmp_path / "project", *OPTIONAL)
    for arguments in ([], ["--resume", "latest", "training.epochs=2"]):
        done = script("train.py", *arguments, cwd=project)
        assert done.returncode == 0, done.stderr
    (run,) = (project / "saved").glob("*/*")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    accuracies = [line["test_accuracy"] for line in lines if "test_accuracy" in line]
    assert len(accuracies) == 2
    done = script("test.py", cwd=project)
    assert done.returncode == 0, done.stderr
    assert f"accuracy @ {max(accuracies)}" in done.stdout
    assert not (run / "report.html").exists()
    done = script("train.py", "training.optimizer.args.learning_rate=1e30", cwd=project)
    assert done.returncode == 1
    assert "error: epoch 1, batch 1: the loss or a gradient is not finite" in done.stderr
    assert "training/debug, which would find the layer, is not part of this project" in done.stderr


@pytest.mark.parametrize("folder", COMMANDS)
def test_without_one_of_them_a_run_trains(folder, tmp_path, script):
    project = copy_without(tmp_path / "project", folder)
    done = script("train.py", cwd=project)
    assert done.returncode == 0, done.stderr
    (run,) = (project / "saved").glob("*/*")
    assert (run / "report.html").exists() == (folder != "training/report")
    assert (run / "environment.json").exists() == (folder != "training/provenance")
    command, shown = COMMANDS[folder]
    done = script(*command, cwd=project)
    printed = done.stdout + done.stderr
    assert "Traceback" not in printed, printed
    assert shown not in printed, printed


@pytest.mark.parametrize("folder", COMMANDS)
def test_each_of_them_works_without_the_others(folder, tmp_path, script):
    project = copy_without(tmp_path / "project", *(one for one in COMMANDS if one != folder))
    done = script("train.py", cwd=project)
    assert done.returncode == 0, done.stderr
    command, shown = COMMANDS[folder]
    done = script(*command, cwd=project)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout, done.stdout


def test_runs_are_compared_without_the_record_of_what_they_were_made_from(tmp_path, script):
    project = copy_without(tmp_path / "project", "training/provenance")
    for seed in (0, 1):
        done = script("train.py", f"seed={seed}", cwd=project)
        assert done.returncode == 0, done.stderr
    done = script("-m", "training.report.compare", "saved/MNIST_Sample", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "test_accuracy" in done.stdout
    done = script("-m", "training.report", "saved/MNIST_Sample", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "comparison.html" in done.stdout
