"""`python new_project.py`: a project of one's own, with and without the optional folders."""

import ast
import json
import re
import shutil
import subprocess
import sys

import new_project
from tests.helpers.project import ROOT

PACKAGES = {"PIL": "pillow", "ml_dtypes": "ml-dtypes"}  # where the name that is imported differs
OWN = ("train", "test", "utils", "my_data", "my_model", "data_loader", "model", "training")


def imported(folder):
    """The top-level names that the Python files of a project import."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {one.name.partition(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.partition(".")[0])
    return names


def test_a_minimal_project_has_no_optional_folder_and_requires_what_it_imports(minimal):
    assert not [name for name in new_project.OPTIONAL if (minimal / name).exists()]
    lines = (minimal / "requirements.txt").read_text().splitlines()
    pins = {line.partition("==")[0] for line in lines if "==" in line}
    # Imported where it is asked for, or in tests.
    optional = {"orbax", "yaml", "pytest", "flax", "pandas", "datasets", "grain", "mlflow"}
    outside = imported(minimal) - sys.stdlib_module_names - {*OWN, "tests"} - optional
    assert {PACKAGES.get(name, name) for name in outside} | {"jaxlib"} == pins
    readme = (minimal / "README.md").read_text()
    assert not re.search(r"--check|inference|report", readme)
    assert "**your network**" in readme


def test_exports_and_caches_are_not_copied(tmp_path, monkeypatch):
    here = tmp_path / "here"
    for name in (
        "graph/__init__.py",
        "graph/__pycache__/a.pyc",
        "mine/mine.onnx",
        "demo.py",
        "a.log",
    ):
        (here / "inference" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "inference" / name).touch()
    for name in ("pyproject.toml", "requirements-dev.txt"):
        shutil.copy(ROOT / name, here / name)
    monkeypatch.setattr(new_project.utils, "ROOT", here)
    new_project.make_project(tmp_path / "mine")
    files = [path for path in (tmp_path / "mine" / "inference").rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["__init__.py", "demo.py"]


def test_it_is_a_git_repository_without_history_and_without_what_is_not_its_own(project):
    git = ["git", "-C", str(project)]
    assert subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True).returncode != 0
    new = subprocess.run(
        [*git, "ls-files", "--others", "--exclude-standard"], capture_output=True, text=True
    ).stdout.split()
    assert {"train.py", "my_data.py", "config.json", "tests/test_my_project.py"} <= set(new)
    assert {".ci/run", ".github/workflows/tests.yml", ".pre-commit-config.yaml"} <= set(new)
    strange = (
        "benchmarks/", "data/", "docs/", "examples/", "new_project.py", "tests/training/",
        "CHANGELOG.md", "CONTRIBUTING.md",
    )  # fmt: skip
    assert not [name for name in new if name.startswith(strange)]
    folders = {path.name for path in (project / "inference").iterdir() if path.is_dir()}
    assert folders == {"export", "graph", "serving", "verify"}


def test_the_editor_finds_the_schema_and_the_linter_no_mistake(project):
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
    assert [pin.partition("==")[0] for pin in pins] == [
        "pytest",
        "ruff",
        "codespell",
        "pyrefly",
        "pre-commit",
    ]
    assert (project / "requirements.txt").read_text() == (ROOT / "requirements.txt").read_text()


def test_the_samples_data_and_the_examples_are_copied_when_asked_for(tmp_path):
    folder = tmp_path / "mine"
    assert new_project.main([str(folder), "--with", "data", "examples"]) == 0
    assert (folder / "data" / "train-images-idx3-ubyte.gz").exists()
    assert (folder / "examples" / "gan" / "gan.py").exists()
    assert not (folder / "benchmarks").exists()
    assert json.loads((folder / "config.json").read_text())["title"] == "mine"


def test_a_place_or_a_title_that_is_not_valid_is_refused_and_nothing_is_made(tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("years of work")
    for arguments, expected in (
        ([taken], "exists already; expected a new or an empty folder"),
        ([ROOT / "mine"], "is within this project; expected a place beside it"),
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
