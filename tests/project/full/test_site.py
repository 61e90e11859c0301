"""docs/ as a site, and the notebook."""

import re
import subprocess
import sys

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from tests.helpers.copies import copy_project
from tests.helpers.project import ROOT

NAVIGATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
PAGES = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_navigation():
    assert [page for page in PAGES if f"- {page}\n" not in NAVIGATION] == []


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(site):
    for page in PAGES:
        where = page.removesuffix(".md")
        html = (site / ("index.html" if where == "index" else f"{where}/index.html")).read_text()
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?([^\s\">]+)", html)
        assert [one for one in loaded if re.match(r"(https?:)?//", one)] == []


def test_the_reference_has_what_a_user_calls_and_every_key(site):
    text = (site / "reference/training/index.html").read_text()
    assert all(f'id="{name}"' in text for name in ("train.fit", "training.engine.run.Run.predict"))
    text = (site / "reference/config/index.html").read_text()
    sections = yaml.safe_load((ROOT / "training" / "config.schema.json").read_text())["$defs"]
    keys = [key for name in ("Training", "DataLoaders") for key in sections[name]["properties"]]
    assert [key for key in keys if f"<code>{key}</code>" not in text] == []


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path):
    copy_project(tmp_path / "project")
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    resources = {"metadata": {"path": str(tmp_path / "project")}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    printed = [one.get("text", "") for cell in notebook.cells for one in cell.get("outputs", ())]
    assert "digit.png" in printed[-1]
    assert (tmp_path / "project/inference/notebook/notebook.onnx").exists()
