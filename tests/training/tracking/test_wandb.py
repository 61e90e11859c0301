"""Metrics in the real Weights & Biases, offline."""

import sys

import numpy as np
import pytest

from tests.helpers.tracking import of_kind, wandb_history
from training.config import read_config
from training.tracking.trackers import Trackers, with_wandb_id
from utils import set_up_logging


@pytest.fixture
def trackers(offline, write_config, tmp_path):
    """Starts Weights & Biases alone, as a tracker with an argument of `wandb.init`."""
    offline["wandb"] |= {"enabled": False, "id": "an-id"}
    offline["training"]["trackers"] = [{"name": "wandb", "args": {"tags": ["a tag"]}}]
    folder = tmp_path / "run"
    folder.mkdir()
    return lambda sizes=None: Trackers(
        read_config(write_config(offline)), folder, sizes or {}
    ), folder


def test_wandb_as_a_tracker_takes_arguments_of_its_init_and_images(trackers):
    start, folder = trackers
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    with start() as running:
        running.log({"step": 3, "loss": 0.5})
        running.image(4, "first layer", image)
        running.text(5, "sample", "a <b>")
        running.histogram(6, "weights", np.arange(10))
    (started,) = of_kind(folder, "run")
    assert list(started.tags) == ["a tag"]
    assert started.run_id == "an-id"
    numbers, images, texts, histograms = wandb_history(folder)
    (text,) = folder.rglob("*.html")
    assert text.read_text() == "<pre>a &lt;b&gt;</pre>"
    assert (texts["_step"], histograms["_step"]) == (5, 6)
    assert sum(histograms["weights/values"]) == 10
    assert (numbers["_step"], numbers["loss"]) == (3, 0.5)
    assert (images["_step"], images["first layer/height"], images["first layer/width"]) == (4, 4, 5)


def test_a_run_that_an_error_ended_has_failed_at_wandb(trackers):
    start, folder = trackers

    def fail():
        with start():
            raise RuntimeError("in training")

    with pytest.raises(RuntimeError, match="in training"):
        fail()
    assert [one.exit_code for one in of_kind(folder, "exit")] == [1]


def test_an_error_handled_around_a_run_does_not_make_it_fail_at_wandb(trackers):
    start, folder = trackers
    try:
        raise RuntimeError("an earlier run")
    except RuntimeError:
        assert sys.exception() is not None
        with start():
            pass
    assert [one.exit_code for one in of_kind(folder, "exit")] == [0]


@pytest.mark.parametrize("key", ["wandb.enabled=true", 'training.trackers=["wandb"]'])
def test_only_a_run_tracked_by_wandb_gets_an_id(config, write_config, key):
    file = write_config(config)
    assert with_wandb_id(read_config(file)) == read_config(file)
    assert len(with_wandb_id(read_config(file, [key])).wandb.id) == 8


def test_figures_that_wandb_keeps_of_a_run_that_goes_on_earlier_are_told(
    trackers, monkeypatch, capsys
):
    """No server is here: the answers of one that has the run up to step 24 stand for it."""
    import wandb
    from wandb.sdk.wandb_run import Run

    start, folder = trackers
    (folder / "metrics.jsonl").write_text('{"step": 12, "epoch": 2}\n')
    monkeypatch.setattr(Run, "resumed", True)
    monkeypatch.setattr(Run, "starting_step", 25)
    set_up_logging()
    with start({"metrics.jsonl": 25}):
        assert wandb.run is not None
    said = capsys.readouterr().out
    assert (
        "has figures of this run up to step 24 and keeps them, but it continues from step 12"
        in said
    )
    assert f"--resume {folder} wandb.id=NEW" in said
