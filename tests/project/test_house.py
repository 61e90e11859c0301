"""The laws of the house: what imports what, how large files are, where functions are compiled.

The directions of imports between folders are contracts in `pyproject.toml`, for import-linter.
"""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.project import ROOT

FOLDERS = ("benchmarks", "data_loader", "examples", "inference", "model", "training")
OPTIONAL = ("model/zoo", "training/debug", "training/provenance", "training/report",
            "training/sweep", "training/weights")  # fmt: skip
MACHINERY = ("training/config.py", "training/schema.py", "training/engine/", "training/checkpoint/",
             "training/tracking/", "training/distributed/", "inference/", *OPTIONAL)  # fmt: skip
USER_FILES = (
    "data_loader/dataloader.py", "data_loader/transforms.py", "model/model.py",
    "training/callbacks.py", "training/loss.py", "training/metrics.py", "training/optimizers.py",
)  # fmt: skip
COMPILING = {  # every file that calls jax.jit, with the reason
    "training/engine/compilation.py": "the one place where training is compiled",
    "training/distributed/sharding.py": "an identity, which gathers the shards of an array",
    "training/report/gallery.py": "the augmentation alone, of a few images for the report",
    "inference/export/network.py": "the network to be exported",
    "inference/export/trained.py": "the network that exported files are compared with",
    "inference/verify/stablehlo.py": "runs an exported StableHLO file",
}
# The files that a batch and its metrics pass through, from the disk to the log.
CHAIN = (
    "data_loader/dataloader.py",  # reads examples
    "data_loader/base.py",  # makes a batch of them
    "training/engine/loop.py",  # asks for it
    "training/engine/scan.py",  # stacks several for one call
    "training/distributed/sharding.py",  # puts it on the devices
    "training/engine/step.py",  # compiled, with the next
    "training/optimizers.py",  # updates the parameters
    "training/tracking/metric_logger.py",  # reads what was measured and sums it
    "training/tracking/trackers.py",  # gives it to each tracker
    "training/tracking/jsonl.py",  # writes it
)
COMPILED = {"training/engine/step.py", "training/optimizers.py"}  # not called again once compiled
BESIDE = {  # also called in an epoch, but no batch passes through
    "utils.py": "escapes the lines of the log",
    "training/common/timing.py": "measures where the time goes",
    "training/common/files.py": "turns errors of the disk into messages",
    "data_loader/locked_files.py": "sees whether another program renamed or removed a file",
    "training/debug/recompilation.py": "warns of recompilations",
    "training/distributed/preemption.py": "looks for a signal to stop",
    "training/engine/progress.py": "says where in the epoch the bar begins",
    "training/engine/splits.py": "names the split in an error of the data",
    "training/tracking/progress_bar.py": "shows how far the epoch is",
}


def project_files():
    """The Python files of the project, tests aside, by their paths."""
    files = [*ROOT.glob("*.py"), *(one for name in FOLDERS for one in (ROOT / name).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path for path in files}


FILES = project_files()


@functools.cache
def parsed(name):
    """The syntax tree of a file."""
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


@functools.cache
def imported(name):
    """The files of the project that a file imports, inside of functions too."""
    found = set()
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            found |= {file_of(one.name, name) for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            modules = {file_of(f"{node.module}.{one.name}", name) for one in node.names}
            found |= modules - {None} or {file_of(node.module, name)}
    return found - {None, name}


def file_of(module, importer):
    """The file of a module, or None; a script finds the modules beside it first."""
    for folder in (importer.rpartition("/")[0], ""):
        path = f"{folder}/{module.replace('.', '/')}".lstrip("/")
        for name in (f"{path}.py", f"{path}/__init__.py"):
            if name in FILES:
                return name
    return None


def circles(graph):
    """The groups of nodes of which each can be reached from every other."""
    reachable = {}
    for node in graph:
        seen, left = set(), [node]
        while left:
            new = graph[left.pop()] - seen
            seen |= new
            left += new
        reachable[node] = seen
    groups = {
        frozenset(other for other in reachable[node] if node in reachable[other])
        for node in graph
        if node in reachable[node]
    }
    return sorted(sorted(group) for group in groups)


def test_imports_between_folders_go_one_way():
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_no_files_import_each_other_in_a_circle():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({name: imported(name) for name in FILES}) == []


def test_utils_imports_nothing_of_the_project():
    assert imported("utils.py") == set()


@pytest.mark.parametrize("name", USER_FILES)
def test_a_users_file_imports_no_machinery(name):
    assert [one for one in imported(name) if one.startswith(MACHINERY)] == []


@pytest.mark.parametrize("folder", [*OPTIONAL, "inference"])
def test_nothing_outside_an_optional_folder_imports_it(folder):
    outside = [name for name in FILES if not name.startswith((folder, "benchmarks/", "examples/"))]
    assert len(outside) > 50
    importers = [
        name for name in outside if any(one.startswith(f"{folder}/") for one in imported(name))
    ]
    assert importers == []


def test_training_itself_has_at_most_8_files():
    assert len(list((ROOT / "training").glob("*.py"))) <= 8


def test_train_py_has_at_most_120_lines():
    assert len((ROOT / "train.py").read_text(encoding="utf-8").splitlines()) <= 120


def test_training_is_compiled_in_one_place():
    def attributes(name):
        return {node.attr for node in ast.walk(parsed(name)) if isinstance(node, ast.Attribute)}

    engine = [name for name in FILES if not name.startswith(("benchmarks/", "examples/"))]
    assert {name for name in engine if attributes(name) & {"jit", "pjit"}} == set(COMPILING)
    assert [name for name in engine if "__wrapped__" in attributes(name)] == []


def test_a_batch_passes_through_at_most_ten_files(run, monkeypatch):
    from training.engine import loop

    train_epoch, called = loop.train_epoch, []

    def note(frame, event, _):
        if event == "call":
            called[-1].add(frame.f_code.co_filename)

    def traced_epoch(*arguments):
        called.append(set())
        sys.setprofile(note)
        try:
            return train_epoch(*arguments)
        finally:
            sys.setprofile(None)

    monkeypatch.setattr(loop, "train_epoch", traced_epoch)
    code, _ = run("training.epochs=2")
    assert code == 0
    _, second = called  # in the first epoch, functions may still be traced by JAX
    second = {name for name, path in FILES.items() if str(path) in second}
    assert second - BESIDE.keys() == set(CHAIN) - COMPILED
    assert second >= BESIDE.keys()
    assert "training/optimizers.py" in imported("training/engine/step.py")
    assert "training/engine/step.py" in imported("training/engine/build.py")
    assert len(CHAIN) <= 10
