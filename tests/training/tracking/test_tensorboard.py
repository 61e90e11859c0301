"""Metrics and images in real TensorBoard event files."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.helpers.project import by_set
from tests.helpers.tracking import events, json_lines, scalar_events
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
