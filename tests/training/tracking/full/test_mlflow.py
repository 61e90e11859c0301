"""Metrics, images and texts in the real MLflow, read back by its own client."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.helpers.tracking import json_lines
from training.config import read_config
from training.tracking.trackers import Trackers
from utils import UserError

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(params=["file", "sqlite"])
def uri(request, tmp_path, monkeypatch):
    """Where MLflow keeps its runs, and its environment as one has it who sets nothing."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # restored after the test
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)  # sqlite's artifacts are in ./mlruns
    return {"file": str(tmp_path / "runs"), "sqlite": f"sqlite:///{tmp_path}/mlflow.db"}[
        request.param
    ]


@pytest.fixture
def start(uri, config, write_config, tmp_path):
    """Starts MLflow alone, as the tracker of a run."""
    named = {"name": "mlflow", "args": {"uri": uri, "experiment": "tests"}}
    config["training"]["trackers"] = [named]
    folder = tmp_path / "run"
    folder.mkdir()
    return lambda sizes=None, step=0: Trackers(
        read_config(write_config(config)), folder, sizes or {}, step
    )


def only_run(uri):
    """The client and the one run of the experiment."""
    store = mlflow.MlflowClient(uri if ":" in uri else f"file:{uri}")
    experiment = store.get_experiment_by_name("tests")
    (found,) = store.search_runs([experiment.experiment_id])
    return store, found


def history(uri):
    """{(name, step): [value, ...]} of everything MLflow has of the run."""
    store, found = only_run(uri)
    values = {}
    for name in found.data.metrics:
        for one in store.get_metric_history(found.info.run_id, name):
            values.setdefault((name, one.step), []).append(one.value)
    return values


def expected(folder):
    """The same of metrics.jsonl; an epoch's last step has two lines, which agree."""
    return {
        (name, line["step"]): [value]
        for line in json_lines(folder / "metrics.jsonl")
        for name, value in line.items()
        if name != "step"
    }


def test_mlflow_has_numbers_images_texts_settings_and_the_checkpoint(start, uri, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    (tmp_path / "checkpoint.params").write_bytes(b"weights")
    with start() as trackers:
        trackers.log({"step": 3, "epoch": 1, "batch": 2, "loss": 0.5, "lost": float("nan")})
        trackers.image(4, "val/masks", image)
        trackers.text(4, "sample", "ä text")
        trackers.histogram(4, "weights", image)
        trackers.artifact(tmp_path / "checkpoint.params")
    store, found = only_run(uri)
    assert history(uri) == {("epoch", 3): [1], ("batch", 3): [2], ("loss", 3): [0.5]}
    assert found.info.status == "FINISHED"
    assert found.data.params["training.epochs"] == "2"

    def read(folder):
        (one,) = store.list_artifacts(found.info.run_id, folder)
        one = store.list_artifacts(found.info.run_id, one.path)[0] if one.is_dir else one
        return store.download_artifacts(found.info.run_id, one.path, str(tmp_path))

    np.testing.assert_array_equal(np.asarray(Image.open(read("images"))), image)
    with open(read("texts"), encoding="utf-8") as file:
        assert file.read() == "ä text"
    with open(read("checkpoint"), "rb") as file:
        assert file.read() == b"weights"


def test_a_resumed_run_is_one_run_of_mlflow_with_every_step_once(start, uri, tmp_path):
    def log(trackers, steps):
        for step in steps:
            trackers.log({"step": step, "epoch": 1, "batch": step, "loss": 1 / step})
        trackers.image(step, "x", np.zeros((2, 2), np.uint8))

    with start() as trackers:
        log(trackers, [1, 2])
        sizes = trackers.sizes()
        log(trackers, [3, 4])  # and is killed
    with start(sizes, 2) as trackers:
        log(trackers, [3, 4])
        trackers.log({"step": 4, "epoch": 1, "test_loss": 0.25})
    assert history(uri) == expected(tmp_path / "run")
    store, found = only_run(uri)
    (folder,) = store.list_artifacts(found.info.run_id, "images")
    names = [one.path for one in store.list_artifacts(found.info.run_id, folder.path)]
    assert names == ["images/x/000000002.png", "images/x/000000004.png"]


def test_what_mlflow_has_not_got_comes_from_metrics_jsonl(start, uri, tmp_path):
    with start() as trackers:
        trackers.log({"step": 1, "epoch": 1, "loss": 0.5})
        sizes = trackers.sizes()
    record = tmp_path / "run" / "mlflow.json"
    store, found = only_run(uri)
    store.delete_run(found.info.run_id)
    record.write_text(json.dumps(json.loads(record.read_text()) | {"run": "0" * 32}))
    with start(sizes, 1) as trackers:
        trackers.log({"step": 2, "epoch": 2, "loss": 0.25})
    assert history(uri) == expected(tmp_path / "run")
    assert len(history(uri)) == 4


def test_a_run_that_an_error_ended_has_failed_at_mlflow(start, uri):
    def fail():
        with start():
            raise RuntimeError("in training")

    with pytest.raises(RuntimeError, match="in training"):
        fail()
    assert only_run(uri)[1].info.status == "FAILED"


def test_the_password_of_a_uri_is_in_no_file_of_the_run(config, write_config, tmp_path):
    config["training"]["trackers"] = ["mlflow"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")  # nobody listens
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(UserError, match="the tracker mlflow failed: ") as caught:
            Trackers(read_config(write_config(config)), tmp_path, {})
    assert "secret" not in str(caught.value)


def test_a_whole_run_is_in_the_folder_beside_the_runs(run, config, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    config["title"], config["training"]["trackers"] = "tests", ["mlflow"]
    code, folder = run()
    assert code == 0
    assert history(str(folder.parents[1] / "mlruns")) == expected(folder)
