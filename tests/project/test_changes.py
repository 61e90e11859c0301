"""What CONTRIBUTING.md and docs/ say of the project: places of changes, names, numbers."""

import ast
import io
import re
import subprocess
import tokenize

import pytest

import new_project
from tests.helpers.project import ROOT
from training import config

CHANGES = (
    "an augmentation", "a metric", "what is logged", "a tracker", "the checkpoint's name",
    "an image to the trackers", "the schedule", "freeze a layer", "noise on gradients",
    "save every N minutes", "an image format", "a config key", "the HTML report", "an exporter",
    "a function at each epoch's end",
)  # fmt: skip
WORD = re.compile(r"`([^`]+)`")


def read_table():
    """The rows of CONTRIBUTING.md's table of changes, each a list of its four cells."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Where a change belongs")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


TABLE = read_table()


def names_in(path):
    """Every name that a Python file defines, imports or uses."""
    if path.suffix != ".py":
        return set()
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    kinds = {ast.Name: "id", ast.FunctionDef: "name", ast.ClassDef: "name", ast.alias: "name"}
    return {getattr(node, kinds[type(node)]) for node in nodes if type(node) in kinds}


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_the_place_of_a_change_exists(row):
    change, edit, there, keys = row
    files = [ROOT / word for word in WORD.findall(edit)]
    assert len(files) in (0, 1, 2)
    assert [path for path in files if not path.is_file()] == []
    assert files or keys
    known = set().union(*map(names_in, files))
    words = [word for word in WORD.findall(there) if re.fullmatch(r"\w+", word)]
    assert [word for word in words if word not in known] == [], change
    sections = [one for one in vars(config).values() if hasattr(one, "model_fields")]
    fields = {field for section in sections for field in section.model_fields}
    for key in WORD.findall(keys):
        assert set(key.partition(".args")[0].split(".")) <= fields


def test_the_table_has_every_change_that_is_often_made():
    assert [one for one in CHANGES if not any(row[0].startswith(one) for row in TABLE)] == []


def test_an_image_can_be_given_to_the_trackers():
    assert "image" in names_in(ROOT / "training" / "tracking" / "trackers.py")


def code_lines(text):
    """The number of lines of Python that are neither blank, nor comment, nor docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings, lines = set(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            docstrings |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.string.strip() and token.type != tokenize.COMMENT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def test_the_docs_say_how_many_lines_a_minimal_project_has(tmp_path):
    page = (ROOT / "docs" / "new_project.md").read_text(encoding="utf-8")
    said = re.search(r"about ([\d,]+) lines of Python, of which ([\d,]+) are code", page)
    lines, code = (int(number.replace(",", "")) for number in said.groups())
    command = re.search(r"`(find \S+small_project .+? wc -l)`", " ".join(page.split()))[1]
    assert new_project.main([str(tmp_path / "small_project"), "--minimal"]) == 0
    (tmp_path / "here").mkdir()
    counted = subprocess.run(
        command, shell=True, cwd=tmp_path / "here", capture_output=True, text=True, check=True
    )
    assert abs(int(counted.stdout) - lines) <= 0.05 * lines
    files = [
        path
        for path in (tmp_path / "small_project").rglob("*.py")
        if "tests" not in path.relative_to(tmp_path).parts
    ]
    counted = sum(code_lines(path.read_text(encoding="utf-8")) for path in files)
    assert abs(counted - code) <= 0.05 * code
