"""A project made by `python new_project.py` trains, and its own tests and checks pass."""

import os
import subprocess
import sys
from pathlib import Path


def test_the_tests_of_a_minimal_project_pass_at_once(minimal, script):
    done = script("-m", "pytest", cwd=minimal)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


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


def test_the_checks_before_a_commit_pass_and_find_a_mistake(project, monkeypatch, tmp_path):
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "hooks"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def check():
        subprocess.run(["git", "add", "."], cwd=project, check=True)
        command = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
        return subprocess.run(command, cwd=project, capture_output=True, text=True)

    done = check()
    assert done.returncode == 0, done.stdout
    names = {"ruff check", "ruff format", "pyrefly check", "codespell"}
    lines = done.stdout.splitlines()
    assert {line.partition("..")[0] for line in lines if line.endswith("Passed")} == names
    mistake = project / "data_loader" / "mistake.py"
    mistake.write_text('"""A mistake."""\n\nimport os\n\nNAMES: list[str] = 3\n')
    done = check()
    mistake.unlink()
    assert done.returncode == 1
    assert "imported but unused" in done.stdout
    assert "is not assignable to `list[str]`" in done.stdout
