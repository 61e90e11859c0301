"""The examples whose targets move or mix with the pictures: segmentation, detection, mixup."""

import re
import shutil

import jax
import numpy as np
import pytest

import test as test_command
import train
from examples.detection.one_object import PlacedDigits, found, overlap
from examples.segmentation.unet import Shapes
from inference import convert_tflite
from inference.verify.runtimes import load as load_file
from tests.helpers.examples import detection_config, mixup_config, segmentation_config
from tests.helpers.project import TEST_EXAMPLES, same_arrays
from training.checkpoint.naming import find
from training.checkpoint.reading import read
from training.engine.load import load

EXAMPLES = ("segmentation", "detection", "mixup")


@pytest.fixture(scope="module")
def runs(mnist, tmp_path_factory):
    """{example: the Run of its small config}, two epochs each."""
    folder = tmp_path_factory.mktemp("pictures")
    values = {
        "segmentation": segmentation_config(folder),
        "detection": detection_config(mnist, folder),
        "mixup": mixup_config(mnist, folder),
    }
    return {name: train.fit(one) for name, one in values.items()}


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_run_resumed_after_an_epoch_ends_with_the_same_bits(runs, example, tmp_path):
    folder = tmp_path / "resumed"
    shutil.copytree(runs[example].folder, folder)
    for path in folder.glob("checkpoint-*2*"):
        path.unlink()
    assert not list(folder.glob("checkpoint-best*"))
    assert train.main(["--resume", str(folder), "--trust"]) == 0
    assert same_arrays(*(read(find(one))[0] for one in (folder, runs[example].folder)))


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_report_shows_pictures_before_and_after(runs, example):
    page = (runs[example].folder / "report.html").read_text()
    assert page.count("as stored") == 9  # the heading, and eight pictures


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_run_is_evaluated_exported_and_predicts_what_the_exported_files_do(
    runs, example, tmp_path, capsys
):
    run = runs[example]
    assert test_command.main(["-w", str(run.folder)]) == 0
    name = {"segmentation": "iou", "detection": "overlap", "mixup": "accuracy"}[example]
    printed = float(re.search(rf"{name} @ (\S+)", capsys.readouterr().out)[1])
    assert printed == pytest.approx(run.metrics[f"test_{name}"])
    arguments = ["--name", example, "-w", str(run.folder), "--into", str(tmp_path)]
    assert convert_tflite.main(arguments) == 0
    inputs = next(run.experiment.loaders["test"].batches(epoch=1))["inputs"]
    wanted = jax.tree.leaves(load(run.folder)(inputs))
    for suffix in (".onnx", ".tflite"):
        file = load_file(tmp_path / example / f"{example}{suffix}")
        made = file.run(dict.fromkeys(file.inputs, inputs))
        for one, other in zip(jax.tree.leaves(made), wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-3)


def test_shapes_are_drawn_where_their_masks_are():
    shapes = Shapes(40, seed=3)
    brightness = shapes.pictures.mean(1)
    ground = brightness[shapes.masks == 0]
    assert abs(ground.mean() - 59.5) < 1
    for label in (1, 2, 3):
        assert brightness[shapes.masks == label].mean() > 100
    again = Shapes(40, seed=3)
    np.testing.assert_array_equal(shapes.masks, again.masks)


def test_boxes_are_around_the_digits_and_their_overlap_is_that_of_drawn_masks(mnist):
    digits = PlacedDigits(mnist, "test")
    boxes = []
    for index in range(20):
        picture, targets = digits[index]
        x0, y0, x1, y1 = (int(one) for one in targets["box"])
        bright = np.argwhere(picture[0] >= 64)
        assert ((bright >= [y0, x0]) & (bright < [y1, x1])).all()
        assert len(bright) > 10
        boxes.append(targets["box"])
    boxes = np.stack(boxes)
    y, x = np.mgrid[:40, :40] + 0.5
    masks = np.stack([(x > a) & (x < c) & (y > b) & (y < d) for a, b, c, d in boxes])
    other = np.roll(masks, 1, 0)
    wanted = (masks & other).sum((1, 2)) / (masks | other).sum((1, 2))
    outputs = {"box": np.roll(boxes, 1, 0), "class": np.eye(10)[:1].repeat(20, 0)}
    targets = {"box": boxes, "class": np.zeros(20, int)}
    np.testing.assert_allclose(overlap(outputs, targets), wanted, atol=1e-6)
    np.testing.assert_array_equal(found(outputs, targets), wanted > 0.5)


def test_evaluation_sees_labels_and_neither_mixing_nor_smoothing(runs):
    run = runs["mixup"]
    dataset = run.experiment.loaders["test"].dataset
    inputs, labels = dataset[np.arange(TEST_EXAMPLES)]
    logits = run.predict(inputs)
    log_probabilities = np.asarray(jax.nn.log_softmax(logits))
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    assert run.metrics["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert run.metrics["test_accuracy"] == pytest.approx((logits.argmax(-1) == labels).mean())
