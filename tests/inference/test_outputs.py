"""What predict.py and the demo show of networks that are no classifiers, judged by NumPy."""

import csv
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from inference import predict
from inference.serving.page import Demo
from tests.helpers.exports import INSIDE, save, write_onnx
from utils import UserError

SIZE = (28, 28)


def write_masks(path, output, *, axes, heads=("masks",)):
    """A network whose logits at each pixel are 1 - its grey, and its grey; `axes` orders them.

    The picture itself is an output as well, untouched, where it is in `heads`.
    """
    constants = {"one": 1, "byte": 255}
    nodes = [
        helper.make_node("Cast", ["input"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "byte"], ["grey"]),
        helper.make_node("Sub", ["one", "grey"], ["dark"]),
        helper.make_node("Concat", ["dark", "grey"], ["both"], axis=1),
        helper.make_node("Transpose", ["both"], ["masks"], perm=axes),
        helper.make_node("Identity", ["input"], ["same"]),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.UINT8, ["batch", 1, *SIZE])]
    shape = np.array(["batch", 2, *SIZE], object)[list(axes)].tolist()
    found = {"masks": (TensorProto.FLOAT, shape), "same": (TensorProto.UINT8, ["batch", 1, *SIZE])}
    outputs = [helper.make_tensor_value_info(name, *found[name]) for name in heads]
    save(path, nodes, inputs, outputs, constants, {"output": output})


@pytest.fixture
def grey(tmp_path, monkeypatch):
    """A picture whose upper half is black and whose lower half is 0.8 of white."""
    monkeypatch.chdir(tmp_path)
    pixels = np.zeros(SIZE, np.uint8)
    pixels[14:] = 204
    Image.fromarray(pixels).save("half.png")
    return pixels


def shown(capsys, *arguments):
    """The words that predict.py prints of half.png."""
    assert predict.main(["half.png", *arguments]) == 0
    return capsys.readouterr().out.split()


def weights_for(*values):
    """A linear network that gives these values for any picture."""
    return np.zeros((784, len(values)), np.float32), np.array(values, np.float32)


def test_labels_are_those_of_at_least_the_threshold_each_with_its_own_probability(grey, capsys):
    said = {"kind": "sigmoid", "name": "logits", "labels": ["cat", "dog", "sun"]}
    odds = (np.log(3), -np.log(3), 0.0)  # 75 %, 25 %, 50 %
    write_onnx("tags.onnx", weights_for(*odds), INSIDE, output=said, **shape_of(3))
    assert shown(capsys, "--name", "tags.onnx") == ["half.png", "cat", "75.00%", "sun", "50.00%"]
    assert shown(capsys, "--name", "tags.onnx", "--threshold", "0.9")[1:3] == ["no", "label"]
    shown(capsys, "--name", "tags.onnx", "--out", "tags.csv")
    (row,) = csv.DictReader(Path("tags.csv").read_text().splitlines())
    assert row["prediction"] == "cat; sun"
    assert [float(row[f"p_{name}"]) for name in said["labels"]] == pytest.approx([0.75, 0.25, 0.5])


def test_one_yes_or_no_is_a_label(grey, capsys):
    said = {"kind": "sigmoid", "name": "logits", "labels": ["fraud"]}
    write_onnx("fraud.onnx", weights_for(np.log(3)), INSIDE, output=said, **shape_of(1))
    assert shown(capsys, "--name", "fraud.onnx") == ["half.png", "fraud", "75.00%"]


def test_values_are_printed_as_they_are_with_their_names(grey, capsys):
    said = {"kind": "none", "labels": ["price (EUR)", "area (m²)"]}
    write_onnx("house.onnx", weights_for(1234.5, -2.0), INSIDE, output=said, **shape_of(2))
    assert " ".join(shown(capsys, "--name", "house.onnx")) == (
        "half.png price (EUR) 1234.5 area (m²) -2"
    )
    shown(capsys, "--name", "house.onnx", "--out", "house.csv")
    assert Path("house.csv").read_text().splitlines()[1] == "half.png,1234.5,-2"


def test_several_outputs_are_printed_by_name_also_an_input_untouched(grey, capsys):
    write_masks("two.onnx", {"kind": "none"}, axes=(0, 1, 2, 3), heads=("masks", "same"))
    line = " ".join(shown(capsys, "--name", "two.onnx"))
    assert "masks 1 1 1 1 1 1 1 1 ... (2, 28, 28)" in line
    assert "same 0 0 0 0 0 0 0 0 ... (1, 28, 28)" in line


@pytest.mark.parametrize(
    ("kind", "axes", "names"),
    [("softmax", (0, 2, 3, 1), ["0", "1"]), ("sigmoid", (0, 2, 3, 1), ["none", "0", "1"]),
     ("sigmoid", (0, 1, 2, 3), ["none", "0", "1"])],
)  # fmt: skip
def test_a_mask_is_a_picture_of_the_likeliest_class_at_each_pixel(grey, kind, axes, names, capsys):
    write_masks("masks.onnx", {"kind": kind, "name": "masks"}, axes=axes)
    words = shown(capsys, "--name", "masks.onnx", "--overlay", "--out", "found")
    logits = np.stack([1 - grey / 255, grey / 255])
    expected = logits.argmax(0) + names.index("0")
    mask = Image.open("found/half.png")
    assert mask.mode == "P"
    np.testing.assert_array_equal(np.asarray(mask), expected)
    assert words[1] == "found/half.png"
    assert words[2:] == [names[expected[0, 0]], "50.0%", names[expected[-1, 0]], "50.0%"]
    assert np.asarray(Image.open("found/half.overlay.png")).shape == (28, 28, 3)


@pytest.mark.parametrize("kind", ["softmax", "none"])
def test_the_demo_says_what_it_cannot_show(grey, kind):
    write_masks("masks.onnx", {"kind": kind}, axes=(0, 2, 3, 1))
    with pytest.raises(UserError, match=r"the demo shows probabilities.*predict\.py"):
        Demo("masks.onnx")


def shape_of(count):
    """The metadata's shape of the outputs."""
    return {"outputs": {"logits": {"shape": ["batch", count], "dtype": "float32"}}, "classes": None}
