"""What serves people who package, cite, or containerise the project says what the project says."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from inference import convert_tflite
from tests.helpers.project import ROOT
from utils import UserError


def pins(name):
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def test_the_version_is_one_in_pyproject_citation_and_changelog():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.search(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released
    assert version == cited["version"] == released[1]
    assert {"title", "authors", "message", "cff-version"} <= cited.keys()


def test_the_package_reads_its_requirements_from_the_file_that_pip_is_given():
    sections = tomllib.loads((ROOT / "pyproject.toml").read_text())
    dynamic = sections["tool"]["setuptools"]["dynamic"]["dependencies"]
    assert sections["project"]["dynamic"] == ["dependencies"]
    assert dynamic["file"] == ["requirements.txt"]
    assert pins("requirements.txt")


def test_only_what_exports_is_left_out_for_a_python_without_wheels_of_it():
    marked = {pin.name for pin in pins("requirements.txt") if pin.marker}
    assert marked <= convert_tflite.PACKAGES


def test_an_export_without_tensorflow_says_which_python_it_needs(monkeypatch):
    absent = lambda name: None  # noqa: E731
    monkeypatch.setattr(convert_tflite.importlib.util, "find_spec", absent)
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    options = convert_tflite.parse_arguments(["--name", "new"])
    with pytest.raises(UserError, match=r"no wheel for Python 3\.14.*3\.11, 3\.12 or 3\.13"):
        convert_tflite.check_options(options)


def test_the_dockerfile_passes_hadolint_and_names_files_that_exist():
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    text = (ROOT / "Dockerfile").read_text()
    named = re.findall(r"requirements[\w-]*\.txt", text)
    assert named
    assert all((ROOT / name).is_file() for name in named)
    assert re.search(r"^USER (?!root|0\b)", text, re.M)


def test_the_devcontainer_builds_from_that_dockerfile():
    folder = ROOT / ".devcontainer"
    build = json.loads((folder / "devcontainer.json").read_text())["build"]
    assert (folder / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (ROOT / build["args"]["REQUIREMENTS"]).is_file()


def test_every_issue_form_is_one_that_the_host_shows():
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) >= 2
    for form in (yaml.safe_load(path.read_text()) for path in forms if path.stem != "config"):
        assert {"name", "description", "body"} <= form.keys()
        for field in form["body"]:
            assert field["type"] in ("textarea", "input", "dropdown", "markdown", "checkboxes")
            assert field["attributes"]
    assert "environment.json" in "".join(path.read_text() for path in forms)


def test_the_text_is_spelled_right():
    program = Path(sys.executable).with_name("codespell")
    done = subprocess.run([program], cwd=ROOT, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stdout
