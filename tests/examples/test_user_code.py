"""The examples are written as a user would: with public names, without changing the template."""

import ast
from pathlib import Path

import pytest

from tests.helpers.examples import EXAMPLES

PROJECT = {"data_loader", "inference", "model", "training", "train", "utils"}
FILES = sorted(EXAMPLES.rglob("*.py"))
MOST_LINES = 120  # of code, without docstrings, comments and empty lines


def imported(tree):
    """Yields (module, name, what it is called) of what is imported from this project."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PROJECT:
            yield from ((node.module, one.name, one.asname or one.name) for one in node.names)
        elif isinstance(node, ast.Import):
            for one in node.names:
                if one.name.partition(".")[0] in PROJECT:
                    yield one.name, "", one.asname or one.name.partition(".")[0]


def lines_of_code(tree):
    """The lines on which something stands that is no docstring."""
    texts = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    found = {node.lineno for node in ast.walk(tree) if hasattr(node, "lineno")}
    return found - texts


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_an_example_uses_no_private_name_and_changes_nothing_of_the_template(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = list(imported(tree))
    for module, name, _ in names:
        assert not any(part.startswith("_") for part in (*module.split("."), name)), (module, name)
    ours = {called for _, _, called in names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            of_ours = node.value.id in ours
            assert not (of_ours and node.attr.startswith("_")), f"{node.value.id}.{node.attr}"
            assert not (of_ours and isinstance(node.ctx, ast.Store)), f"{node.value.id}.{node.attr}"
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("setattr", "delattr"):
            pytest.fail(f"line {node.lineno}: {node.func.id}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_a_file_of_an_example_is_short(path: Path):
    assert len(lines_of_code(ast.parse(path.read_text(encoding="utf-8")))) <= MOST_LINES
