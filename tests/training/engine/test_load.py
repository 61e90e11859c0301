"""What a notebook calls: train.fit, the Run it returns, and load."""

import importlib
import sys

import numpy as np
import pytest

import model.model
import train
import utils
from tests.helpers.project import TEST_EXAMPLES
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


def test_an_edit_of_a_package_of_the_users_does_not_change_old_runs(tmp_path, monkeypatch):
    """The network's file, what it imports from the project, and their __init__ are kept."""
    project, run = tmp_path / "project", tmp_path / "run"
    for path, text in {
        "mine/__init__.py": "", "mine/net.py": NETWORK, "mine/layers.py": "FACTOR = 2",
        "mine/blocks.py": "OFFSET = 1", "mine/unused.py": "", "model/__init__.py": "",
    }.items():  # fmt: skip
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text(text)
    run.mkdir()
    monkeypatch.setattr(utils, "ROOT", project)
    monkeypatch.setattr(sys, "path", [str(project), *sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    now = importlib.import_module("mine.net")
    utils.keep_code(run, "mine.net")
    kept = {path.relative_to(run).as_posix() for path in run.rglob("*.py")}
    assert kept == {
        "mine/__init__.py", "mine/net.py", "mine/layers.py", "mine/blocks.py", "model/__init__.py"
    }  # fmt: skip
    (project / "mine" / "layers.py").write_text("FACTOR = 3")
    with utils.code_of(run):
        old = importlib.import_module("mine.net")
    assert (old.network(10), now.network(10)) == (21, 21)
    assert sys.modules["mine.net"] is now
    for name in ("mine", "mine.net", "mine.layers", "mine.blocks"):
        sys.modules.pop(name, None)
