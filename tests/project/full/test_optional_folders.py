"""Each optional folder can be deleted by itself, and what does not need it still works."""

import pytest

from tests.helpers.copies import copy_without

COMMANDS = {  # of each optional folder: what it is for, and what shows that it was done
    "training/debug": (["train.py", "--check"], "All is well."),
    "training/report": (["test.py", "--predictions"], "predictions.csv"),
    "training/sweep": (["-m", "training.sweep", "seed=[0,1]"], "[2/2] seed=1: test_accuracy"),
    "inference": (["inference/convert_tflite.py", "--name", "mine"], "mine.onnx"),
    "training/provenance": (["train.py", "--resume", "latest", "seed=1"], "seed: was 0, is 1"),
}


@pytest.mark.parametrize("deleted", COMMANDS)
def test_without_one_of_them_a_run_trains_and_the_others_work(deleted, tmp_path, script):
    project = copy_without(tmp_path / "project", deleted)
    done = script("train.py", cwd=project)
    assert done.returncode == 0, done.stderr
    (run,) = (project / "saved").glob("*/*")
    assert (run / "report.html").exists() == (deleted != "training/report")
    assert (run / "environment.json").exists() == (deleted != "training/provenance")
    for folder, (command, shown) in COMMANDS.items():
        done = script(*command, cwd=project)
        printed = done.stdout + done.stderr
        assert "Traceback" not in printed, f"{command}: {printed}"
        assert (shown in printed) == (folder != deleted), f"{command}: {printed}"


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
