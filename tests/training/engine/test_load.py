"""What a notebook calls: train.fit, the Run it returns, and load."""

import importlib
import sys

import numpy as np
import pytest

import model.model
import train
import utils
from tests.helpers.project import TEST_EXAMPLES
from training.common import kept_code
from training.engine.load import load

NETWORK = """
from mine.layers import FACTOR
from .blocks import OFFSET

def network(x):
    return FACTOR * x + OFFSET
"""


@pytest.fixture(scope="module")
def fitted(config_of, tmp_path_factory):
    """A Run that train.fit returned, of a config as a dict."""
    values = config_of(tmp_path_factory.mktemp("fitted"))
    return train.fit(values, training__epochs=1)


def test_fit_returns_what_metrics_jsonl_says(fitted):
    line = utils.ROOT.joinpath(fitted.folder, "metrics.jsonl").read_text().splitlines()[-1]
    assert f'"test_accuracy": {fitted.metrics["test_accuracy"]}' in line
    assert fitted.evaluate()["test_accuracy"] == fitted.metrics["test_accuracy"]


def test_a_run_predicts_and_is_right_as_often_as_it_says(fitted):
    dataset = fitted.experiment.loaders["test"].dataset
    inputs, labels = dataset[np.arange(TEST_EXAMPLES)]
    accuracy = (fitted.predict(inputs).argmax(-1) == labels).mean()
    assert accuracy == pytest.approx(fitted.metrics["test_accuracy"])


def test_a_loaded_network_predicts_the_same_without_the_data(fitted, tmp_path):
    inputs, _ = fitted.experiment.loaders["test"].dataset[np.arange(7)]
    expected = fitted.predict(inputs)
    for path in (fitted.folder, fitted.folder / "checkpoint-epoch_1.params"):
        np.testing.assert_array_equal(load(path)(inputs), expected)
    assert sys.modules["model.model"] is model.model  # the project's own, as before


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(utils.UserError, match="there is no checkpoint here"):
        load(tmp_path)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the user's in a project of its own, imported, with a network and data."""
    project = tmp_path / "project"
    for path, text in {
        "mine/__init__.py": "", "mine/net.py": NETWORK, "mine/layers.py": "FACTOR = 2",
        "mine/blocks.py": "OFFSET = 1", "mine/data.py": "EXAMPLES = 3", "model/__init__.py": "",
    }.items():  # fmt: skip
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text)
    before = dict(sys.modules)
    monkeypatch.setattr(utils, "ROOT", project)
    monkeypatch.setattr(sys, "path", [str(project), *sys.path])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    importlib.invalidate_caches()
    yield project
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
    sys.modules.update(before)


def test_an_edit_of_a_package_of_the_users_does_not_change_old_runs(package, tmp_path):
    """The network's file, what it imports from the project, and their __init__ are kept."""
    run = tmp_path / "run"
    run.mkdir()
    now = importlib.import_module("mine.net")
    kept_code.keep_code(run, "mine.net")
    kept = {path.relative_to(run).as_posix() for path in run.rglob("*.py")}
    assert kept == {
        "mine/__init__.py", "mine/net.py", "mine/layers.py", "mine/blocks.py", "model/__init__.py"
    }  # fmt: skip
    (package / "mine" / "layers.py").write_text("FACTOR = 3")
    with kept_code.code_of(run):
        old = importlib.import_module("mine.net")
        assert importlib.import_module("mine.data").EXAMPLES == 3  # not kept: the project's
    assert (old.network(10), now.network(10)) == (21, 21)
    assert sys.modules["mine.net"] is now


def test_a_resumed_run_finds_what_was_kept_and_what_was_not(package, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    importlib.import_module("mine.net")
    kept_code.keep_code(run, "mine.net")
    (package / "mine" / "net.py").unlink()
    (package / "mine" / "layers.py").write_text("FACTOR = 3")
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]  # as in a new process
    kept_code.use_code_of(run)
    assert importlib.import_module("mine.net").network(10) == 21
    assert importlib.import_module("mine.data").EXAMPLES == 3
