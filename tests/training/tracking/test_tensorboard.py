"""Metrics and images in real TensorBoard event files."""

import io
import resource

import numpy as np
import pytest
from PIL import Image

from tests.helpers.project import by_set
from tests.helpers.tracking import event_records, events, json_lines, scalar_events
from training.tracking.tensorboard import TensorBoard


@pytest.mark.parametrize("key", by_set(["trackers"], ["tensorboard", "trackers"]))
def test_tensorboard_gets_the_metrics_of_metrics_jsonl(run, config, key):
    config["training"][key] = {"tensorboard": True, "trackers": ["tensorboard"]}[key]
    code, folder = run()
    assert code == 0
    found = scalar_events(folder)
    for line in json_lines(folder / "metrics.jsonl"):
        for name, value in line.items():
            if name != "step":
                assert found[name, line["step"]] == pytest.approx(value, rel=1e-6)
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_tensorboard_keeps_every_pixel_of_an_image(tmp_path, channels, mode):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, channels), np.uint8)
    tracker = TensorBoard(tmp_path, None)
    tracker.image(7, "first layer", image)
    tracker.close()
    (((name, step), value),) = events(tmp_path).items()
    assert (name, step) == ("first_layer", 7)
    read = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)).convert(mode))
    np.testing.assert_array_equal(read.reshape(image.shape), image)


def test_tensorboard_has_texts_and_histograms(tmp_path):
    values = np.random.default_rng(0).normal(size=1000)
    tracker = TensorBoard(tmp_path, None)
    tracker.text(3, "sample", "a *text*")
    tracker.histogram(4, "weights", values)
    tracker.close()
    found = {step: value for (_, step), value in events(tmp_path).items()}
    assert found[3].tensor.string_val == [b"a *text*"]
    histogram = found[4].histo
    assert (histogram.num, histogram.min, histogram.max) == (1000, values.min(), values.max())
    assert sum(histogram.bucket) == 1000
    assert histogram.sum == pytest.approx(values.sum())


def test_events_after_the_checkpoint_are_hidden_when_a_run_is_resumed(start, tmp_path):
    """TensorBoard hides what comes before a START event and has its step or a later one."""
    with start("tensorboard") as trackers:
        for step in (1, 2, 3):
            trackers.log({"step": step, "epoch": 1, "loss": 1 / step})
    with start("tensorboard", step=2) as trackers:
        trackers.log({"step": 3, "epoch": 1, "loss": 0.5})
    started = [event.session_log.status for event in event_records(tmp_path / "run")]
    steps = [event.step for event in event_records(tmp_path / "run")]
    assert [step for step, status in zip(steps, started, strict=True) if status == 1] == [3]
    assert steps[-2:] == [3, 3]
    assert scalar_events(tmp_path / "run")["loss", 3] == 0.5


def test_a_full_disk_under_tensorboard_is_one_warning_and_training_goes_on(start, tmp_path, caplog):
    """The limit on the size of files stands for the disk; tensorboardX's own thread would hang."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with start("tensorboard") as trackers:
            for step in range(1, 400):
                trackers.log({"step": step, "epoch": 1, "loss": 1.0, "accuracy": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (warning,) = caplog.messages
    assert "training.trackers.0: the tracker TensorBoard failed: OSError" in warning
    assert len(json_lines(tmp_path / "run" / "metrics.jsonl")) == 399
