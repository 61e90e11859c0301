"""Copies of the project, for tests that change or delete files of it."""

import json
import shutil
from pathlib import Path

from tests.helpers.project import ROOT, write_mnist

FOLDERS = ("data_loader", "examples", "model", "training")
FILES = (
    "train.py", "test.py", "utils.py", "new_project.py", "config.json", "logger_config.json",
    "pyproject.toml", "requirements.txt", "requirements-dev.txt", "LICENSE", ".gitignore",
    ".ci/run", "saved/README.md",
)  # fmt: skip


def copy_project(folder, train=1024, test=1000):
    """Copies the project, without exports and runs, with so many digits of MNIST."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "inference", folder / "inference", ignore=_exports)
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    write_mnist(folder / "data", train, test)
    return folder


def set_small(folder, **training):
    """Has the config of a copy train a small network, for one epoch."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["model"] = {"name": "mlp", "args": {"feat_dims": [16]}}
    for split in ("train", "test"):
        config["data_loader"][split]["args"]["batch_size"] = 128
    config["training"] |= {"epochs": 1, **training}
    path.write_text(json.dumps(config))


def set_quick(folder, small=True):
    """Has what the sample's commands compile be the same for any number of epochs, and little."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["training"]["optimizer"]["args"]["learning_rate"]["args"]["total_steps"] = 20
    if small:
        config["model"]["args"]["feat_dims"] = [8]
    path.write_text(json.dumps(config, indent=4))


def copy_without(folder, *deleted):
    """Copies the project with a small config and 500 digits, without some folders."""
    copy_project(folder, train=500, test=200)
    set_small(folder)
    for name in deleted:
        shutil.rmtree(folder / name)
    return folder


def _exports(folder, names):
    """Returns what is not copied: caches, and exports, which are folders without code."""
    return [
        name
        for name in names
        if name == "__pycache__"
        or ((Path(folder) / name).is_dir() and not (Path(folder) / name / "__init__.py").exists())
    ]
