"""Optional folders can be deleted: the project trains without them, and says what is missing."""

from new_project import OPTIONAL
from tests.helpers.copies import copy_without
from tests.helpers.project import by_set


def test_without_all_of_them_a_run_trains_and_what_is_missing_is_named(tmp_path, script):
    project = copy_without(tmp_path / "project", *OPTIONAL)
    done = script("train.py", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "No report: training/report is not part of this project" in done.stdout
    (run,) = (project / "saved").glob("*/*")
    assert (run / "checkpoint-epoch_1.params").exists()
    needs = [
        ("test.py", "--predictions", "training/report"),
        ("train.py", "--check", "training/debug"),
        ("train.py", "--profile", "training/debug"),
    ]
    for program, option, folder in by_set(needs[:2], needs):
        done = script(program, option, cwd=project)
        assert done.returncode == 1
        assert done.stderr == (
            f"error: {option}: needs {folder}/, which is not part of this project; copy that "
            "folder from the template to have it\n"
        )
    assert list((project / "saved").glob("*/*")) == [run]
