"""Optional folders can be deleted: the project trains without them, and says what is missing."""

import json

from tests.helpers.copies import copy_without

OPTIONAL = (
    "training/debug", "training/provenance", "training/report", "training/sweep", "inference",
)  # fmt: skip


def test_without_all_of_them_a_run_trains_resumes_and_is_evaluated(tmp_path, script):
    project = copy_without(tmp_path / "project", *OPTIONAL)
    done = script("train.py", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "No report: training/report is not part of this project" in done.stdout
    (run,) = (project / "saved").glob("*/*")
    done = script("train.py", "--resume", "latest", "training.epochs=2", cwd=project)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    accuracy = max(line.get("test_accuracy", 0) for line in lines)
    done = script("test.py", cwd=project)
    assert done.returncode == 0, done.stderr
    assert f"accuracy @ {accuracy}" in done.stdout
    assert not (run / "report.html").exists()
    for program, option, folder in (
        ("train.py", "--check", "training/debug"),
        ("train.py", "--profile", "training/debug"),
        ("test.py", "--predictions", "training/report"),
    ):
        done = script(program, option, cwd=project)
        assert done.returncode == 1
        assert done.stderr == (
            f"error: {option}: needs {folder}/, which is not part of this project; copy that "
            "folder from the template to have it\n"
        )
    assert list((project / "saved").glob("*/*")) == [run]
