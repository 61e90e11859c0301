"""The public functions of the files that the type checker looks into have types."""

import ast
import tomllib

import pytest

from tests.helpers.project import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PLACES = [ROOT / name for name in SETTINGS["tool"]["pyrefly"]["project-includes"]]
FILES = sorted(path for one in PLACES for path in (one.rglob("*.py") if one.is_dir() else [one]))


def public_functions(body):
    """The functions of a module and of its public classes, `__init__` and its like included."""
    for node in body:
        name = getattr(node, "name", "_")
        if name.startswith("_") and not name.startswith("__"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node.body)
        elif isinstance(node, ast.FunctionDef):
            yield node


def untyped(function):
    """The names of a function's arguments without a type; "return" if it does not say that."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [one for one in (arguments.vararg, arguments.kwarg) if one]
    named = [one.arg for one in every if one.annotation is None and one.arg not in ("self", "cls")]
    return named + ["return"] * (function.returns is None)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_each_public_function_has_types(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    missing = {one.name: untyped(one) for one in public_functions(tree.body) if untyped(one)}
    assert missing == {}


def test_the_type_checker_looks_into_more_than_30_functions():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in FILES]
    assert sum(len(list(public_functions(tree.body))) for tree in trees) > 30
