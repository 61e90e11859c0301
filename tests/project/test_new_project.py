"""`python new_project.py`: a project of one's own, by making some."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import new_project
from tests.helpers.project import ROOT


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A new project, made while runs, exports and caches lie in this one."""
    folder = tmp_path_factory.mktemp("projects") / "my_project"
    assert new_project.main([str(folder), "--title", "Cats and dogs"]) == 0
    return folder


def test_its_own_tests_pass_at_once(project, script):
    done = script("-m", "pytest", cwd=project)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_it_trains_evaluates_and_has_its_title(project, script):
    done = script("train.py", "training.epochs=2", cwd=project)
    assert done.returncode == 0, done.stderr
    (run,) = (project / "saved" / "Cats and dogs").iterdir()
    assert (run / "my_model.py").exists()
    done = script("test.py", cwd=project)
    assert done.returncode == 0, done.stderr
    accuracy = float(done.stdout.partition("accuracy @ ")[2].split()[0])
    assert accuracy > 0.8
    assert (project / "README.md").read_text().startswith("# Cats and dogs\n")


def test_it_is_a_git_repository_without_history_and_without_what_is_not_its_own(project):
    git = ["git", "-C", str(project)]
    assert subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True).returncode != 0
    new = subprocess.run(
        [*git, "ls-files", "--others", "--exclude-standard"], capture_output=True, text=True
    ).stdout.split()
    assert {"train.py", "my_data.py", "config.json", "tests/test_my_project.py"} <= set(new)
    assert {".ci/run", ".github/workflows/tests.yml", ".pre-commit-config.yaml"} <= set(new)
    strange = (
        "benchmarks/", "data/", "docs/", "examples/", "new_project.py", "tests/training/test_train.py",
        "CHANGELOG.md", "CONTRIBUTING.md",
    )  # fmt: skip
    assert not [name for name in new if name.startswith(strange)]
    folders = [path.name for path in (project / "inference").iterdir() if path.is_dir()]
    assert folders in ([], ["__pycache__"])


def test_what_is_checked_before_a_commit_is_in_order_and_a_slip_is_not(
    project, monkeypatch, tmp_path
):
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "hooks"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def check():
        subprocess.run(["git", "add", "."], cwd=project, check=True)
        command = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
        return subprocess.run(command, cwd=project, capture_output=True, text=True)

    done = check()
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("Passed") == 3
    slip = project / "data_loader" / "slip.py"
    slip.write_text('"""A slip."""\n\nimport os\n\nNAMES: list[str] = 3\n')
    done = check()
    slip.unlink()
    assert done.returncode == 1
    assert "imported but unused" in done.stdout
    assert "is not assignable to `list[str]`" in done.stdout


def test_editor_and_linter_find_it_in_order(project):
    schema = json.loads((project / "config.json").read_text())["$schema"]
    assert (project / schema).exists()
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."],
            cwd=project,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def test_the_tools_of_its_tests_are_pinned_as_here(project):
    here = (ROOT / "requirements-dev.txt").read_text().splitlines()
    there = (project / "requirements-dev.txt").read_text().splitlines()
    pins = [line for line in there if "==" in line]
    assert set(pins) <= set(here)
    assert [pin.partition("==")[0] for pin in pins] == ["pytest", "ruff", "pyrefly", "pre-commit"]
    assert (project / "requirements.txt").read_text() == (ROOT / "requirements.txt").read_text()


def test_the_samples_data_and_the_examples_come_along_when_asked_for(tmp_path):
    folder = tmp_path / "mine"
    assert new_project.main([str(folder), "--with", "data", "examples"]) == 0
    assert (folder / "data" / "train-images-idx3-ubyte.gz").exists()
    assert (folder / "examples" / "gan" / "gan.py").exists()
    assert not (folder / "benchmarks").exists()
    assert json.loads((folder / "config.json").read_text())["title"] == "mine"


def test_a_place_or_a_title_that_will_not_do_is_told_and_nothing_is_made(tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("years of work")
    for arguments, expected in (
        ([taken], "is there already; expected a new or an empty folder"),
        ([ROOT / "mine"], "lies within this project; expected a place beside it"),
        ([tmp_path / "new", "--title", "a/b"], "--title: 'a/b'"),
        ([taken / "thesis.txt" / "mine"], "cannot write there: "),
    ):
        assert new_project.main([str(word) for word in arguments]) == 1
        printed = capsys.readouterr().err
        assert printed.startswith("error: ")
        assert expected in printed
    assert [path.name for path in taken.iterdir()] == ["thesis.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert not (ROOT / "mine").exists()
