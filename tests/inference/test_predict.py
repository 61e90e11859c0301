"""predict.py on real digits, judged by NumPy's answer to the same pixels."""

import csv
import json
import os
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from data_loader import transforms
from inference import predict
from inference.export import network
from inference.serving import exports
from inference.serving.classifier import normalize, softmax
from inference.verify.runtimes import load
from tests.helpers.exports import (
    INSIDE,
    MEAN,
    NAMES,
    OUTSIDE,
    STD,
    metadata_of,
    save,
    write_onnx,
    write_tflite,
)
from tests.helpers.project import ROOT

COUNT = 70  # images; more than one batch
# Of probabilities, relative: float32's sums of 784 products, up to 11 in size, are right to about
# 2e-5, and a CSV has six digits.
TOLERANCE = {"rtol": 5e-5}
STATIC = 4  # batch size of the exports that have one


@pytest.fixture(scope="module")
def digits(mnist_images):
    """The first of the real test images, (examples, 1, 28, 28) uint8."""
    return mnist_images[:COUNT, None]


@pytest.fixture(scope="module")
def images(digits, tmp_path_factory):
    """The digits as PNG files in a folder."""
    folder = tmp_path_factory.mktemp("images")
    for index, pixels in enumerate(digits):
        Image.fromarray(pixels[0]).save(folder / f"{index:03d}.png")
    return folder


@pytest.fixture(scope="module")
def weights(digits):
    """A linear network's (784, 10) and (10,): which of ten images is nearest to an image?"""
    centres = ((digits[:10].reshape(10, -1) / 255 - MEAN) / STD).astype(np.float32)
    return centres.T / 100, -(centres**2).sum(1) / 200


@pytest.fixture(scope="module")
def probabilities(digits, weights):
    """NumPy's probabilities, (examples, 10)."""
    features = (digits.reshape(COUNT, -1) / 255 - MEAN) / STD
    powers = np.exp(features @ weights[0] + weights[1])
    return powers / powers.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def export(weights, tmp_path_factory):
    """An export's folder with a file for each runtime, which take pixels; one has a fixed batch."""
    folder = tmp_path_factory.mktemp("exports") / "digits"
    folder.mkdir()

    def function(pixels):
        x = (pixels.astype(jnp.float32) / 255 - MEAN) / STD
        return x.reshape(-1, 784) @ weights[0] + weights[1]

    linear = network.describe(function, [network.Array("input", (1, 28, 28), np.uint8)], ["logits"])
    (folder / "digits.stablehlo").write_bytes(network.stablehlo(linear))
    (folder / "report.json").write_text(json.dumps({"metadata": metadata_of(INSIDE)}))
    write_onnx(folder / "digits.onnx", weights, INSIDE)
    write_tflite(folder / "digits.tflite", weights)
    write_tflite(folder / "digits.static.tflite", weights, batch=STATIC)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Tests run in an empty folder."""
    monkeypatch.chdir(tmp_path)


def read(path):
    """The paths, predictions and (examples, classes) probabilities of a CSV."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in rows[0] if name.startswith("p_")]
    table = np.array([[float(row[name]) for name in columns] for row in rows])
    return [row["path"] for row in rows], [row["prediction"] for row in rows], table


def refusal(capsys, *arguments):
    """The line that predict.py prints to stderr when it refuses its arguments."""
    assert predict.main([str(one) for one in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("runtime", ["onnx", "tflite", "jax"])
def test_every_runtime_computes_what_numpy_computes(runtime, export, images, probabilities):
    arguments = ["--name", str(export), "--runtime", runtime, "--out", "found.csv"]
    assert predict.main([*arguments, str(images)]) == 0
    paths, predictions, table = read("found.csv")
    assert paths == [str(images / f"{index:03d}.png") for index in range(COUNT)]
    assert predictions == [NAMES[index] for index in probabilities.argmax(1)]
    assert predictions[:10] == NAMES
    np.testing.assert_allclose(table, probabilities, **TOLERANCE)


def test_a_single_file_can_be_named_and_a_fixed_batch_is_filled_up(export, images, probabilities):
    files = [str(images / f"{index:03d}.png") for index in range(STATIC + 2)]
    file = export / "digits.static.tflite"
    assert load(file).inputs["input"][0] == (STATIC, 1, 28, 28)
    assert predict.main(["--name", str(file), *files, "--out", "found.csv"]) == 0
    paths, _, table = read("found.csv")
    assert paths == files
    np.testing.assert_allclose(table, probabilities[: STATIC + 2], **TOLERANCE)


@pytest.mark.parametrize("args", [{"mean": MEAN, "std": STD}, [[MEAN], STD]])
def test_preprocessing_outside_the_file_is_done_in_numpy(
    args, weights, images, probabilities, tmp_path
):
    outside = OUTSIDE | {"args": args}
    write_onnx(tmp_path / "outside.onnx", weights, outside, batch=STATIC)
    arguments = ["--name", "outside.onnx", str(images), "--out", "found.csv"]
    assert predict.main(arguments) == 0
    np.testing.assert_allclose(read("found.csv")[2], probabilities, **TOLERANCE)


def mnist_images_without_preprocessing_are_used_unchanged(weights, digits, images, tmp_path):
    small = weights[0] / 1000, weights[1]
    write_onnx(tmp_path / "raw.onnx", small, None)
    assert predict.main(["--name", "raw.onnx", str(images), "--out", "found.csv"]) == 0
    powers = np.exp(digits.reshape(COUNT, -1).astype(float) @ small[0] + small[1])
    expected = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(read("found.csv")[2], expected, **TOLERANCE)


def test_an_image_is_converted_and_resized_as_in_training(weights, export, tmp_path):
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 56, 3), np.uint8)).save("colours.png")
    grey = Image.open("colours.png").convert("L").resize((28, 28), Image.Resampling.BILINEAR)
    logits = (np.asarray(grey).reshape(-1) / 255 - MEAN) / STD @ weights[0] + weights[1]
    assert predict.main(["--name", str(export), "colours.png", "--out", "found.csv"]) == 0
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(read("found.csv")[2][0], expected, **TOLERANCE)


def test_depth_and_orientation_are_read_as_in_training(weights, digits, probabilities):
    write_onnx("deep.onnx", weights, INSIDE, value_range=[0, 4080])
    exif = Image.Exif()
    exif[274] = 6
    turned = Image.fromarray(digits[3, 0].astype(np.uint16) * 16).rotate(90, expand=True)
    turned.save("3.png", exif=exif)
    Image.new("L", (8, 8)).save(".hidden.png")
    Path("notes.txt").write_text("no picture")
    assert predict.main(["--name", "deep.onnx", ".", "--out", "found.csv"]) == 0
    np.testing.assert_allclose(read("found.csv")[2], probabilities[3:4], **TOLERANCE)


def test_what_is_left_out_is_reported_once(export, digits, capsys):
    for name in ("a/1.png", "b/2.webp", "b/.3.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.fromarray(digits[0, 0]).save(name)
    Path("b/notes.txt").write_text("no picture")
    Path("b/page.jpg").write_text("<html>")
    assert predict.main(["--name", str(export), "a", "b"]) == 1
    out, err = capsys.readouterr()
    assert out == "2 of 3 pictures: predictions in predictions.csv\n"
    skipped, fault = sorted(err.splitlines(), reverse=True)
    assert skipped == f"not used: 1 x hidden (b{os.sep}.3.png), 1 x text file (b{os.sep}notes.txt)"
    assert fault.endswith("page.jpg: cannot be read as a picture: HTML page")


def test_a_name_of_any_bytes_is_printed_and_written(export, digits, capsys):
    name = os.fsdecode(b"\xff\n\x1b.png")
    Image.fromarray(digits[3, 0]).save(name)
    assert predict.main(["--name", str(export), name, "--top", "1"]) == 0
    assert capsys.readouterr().out.startswith("\\xff\\n\\x1b.png   three")
    assert predict.main(["--name", str(export), ".", "--out", "found.csv"]) == 0
    assert b"./\xff\\n\\x1b.png,three" in Path("found.csv").read_bytes()


def test_each_colour_has_its_own_mean(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5), np.uint8)
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    matrix = np.eye(3, dtype=np.float32).repeat(20, axis=0) / 20  # a channel's mean is its logit
    outside = OUTSIDE | {"args": {"mean": mean, "std": std}}
    names = ["red", "green", "blue"]
    write_onnx("rgb.onnx", (matrix, np.zeros(3)), outside, size=(3, 4, 5), classes=names)
    for index in range(2):
        Image.fromarray(pixels[index].transpose(1, 2, 0)).save(f"{index}.png")
    assert predict.main(["--name", "rgb.onnx", "0.png", "1.png", "--out", "found.csv"]) == 0
    logits = (pixels.mean((2, 3)) / 255 - mean) / std
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(read("found.csv")[2], expected, **TOLERANCE)


@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ([0.1, 0.2, 0.3], 0.5), (0.5, [1, 2, 3])])
def test_normalize_computes_the_same_as_in_training(mean, std):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), np.uint8)
    expected = np.asarray(transforms.normalize(jnp.asarray(pixels), mean, std))
    computed = normalize(pixels, mean, std)
    assert computed.dtype == np.float32
    np.testing.assert_allclose(computed, expected, rtol=3e-7, atol=3e-7)


def test_softmax_takes_logits_of_any_size():
    np.testing.assert_allclose(softmax([[1e5, 1e5], [-1e5, 1e5]]), [[0.5, 0.5], [0, 1]])
    assert np.isnan(softmax([[np.nan, 1.0]])).all()


def test_of_several_labels_at_once_each_has_its_own_probability(weights, digits, images, tmp_path):
    write_onnx(tmp_path / "many.onnx", weights, INSIDE, probabilities="sigmoid")
    assert predict.main(["--name", str(tmp_path / "many.onnx"), str(images)]) == 0
    logits = (digits.reshape(COUNT, -1) / 255 - MEAN) / STD @ weights[0] + weights[1]
    np.testing.assert_allclose(read("predictions.csv")[2], 1 / (1 + np.exp(-logits)), **TOLERANCE)


def test_outputs_of_unknown_meaning_are_no_probabilities(weights, images, tmp_path, capsys):
    write_onnx(tmp_path / "odd.onnx", weights, INSIDE, probabilities=None)
    said = refusal(capsys, "--name", tmp_path / "odd.onnx", images / "007.png")
    assert "what its outputs mean is not known" in said


def test_a_line_for_each_image_has_the_likeliest_classes(export, images, probabilities, capsys):
    files = [str(images / "007.png"), str(images / ".." / images.name / "010.png")]
    assert predict.main(["--name", str(export), *files, "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, file, row in zip(lines, files, probabilities[[7, 10]], strict=True):
        first, second = np.argsort(-row)[:2]
        assert line.split() == [
            file,
            *(NAMES[first], f"{row[first]:.2%}"),
            *(NAMES[second], f"{row[second]:.2%}"),
        ]
    assert len({line.rindex("%") for line in lines}) == 1, "the columns are aligned"
    assert not Path("predictions.csv").exists()


def test_classes_without_names_are_numbers_and_top_may_exceed_their_count(weights, images, capsys):
    write_onnx("plain.onnx", weights, INSIDE, classes=None)
    image = str(images / "003.png")
    assert predict.main(["--name", "plain.onnx", image, "--top", "99"]) == 0
    words = capsys.readouterr().out.split()
    assert words[:2] == [image, "3"]
    assert sorted(words[1::2], key=int) == [str(index) for index in range(10)]


@pytest.mark.parametrize("what", ["folder", "pattern"])
def test_a_folder_or_a_pattern_gives_a_csv(what, export, digits, capsys):
    for name in ("b/1.png", "a/2.PNG", "a/[0].jpeg", ".hidden/3.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.fromarray(digits[0, 0]).save(name)
    Path("a/notes.txt").write_text("no picture")
    argument = {"folder": ".", "pattern": "*/*"}[what]
    assert predict.main(["--name", str(export), argument]) == 0
    assert capsys.readouterr().out == "3 of 3 pictures: predictions in predictions.csv\n"
    paths, _, _ = read("predictions.csv")
    assert [str(Path(path)) for path in paths] == ["a/2.PNG", "a/[0].jpeg", "b/1.png"]
    header = Path("predictions.csv").read_text().splitlines()[0]
    assert header.split(",") == ["path", "prediction", "probability", *(f"p_{n}" for n in NAMES)]


def test_a_damaged_image_is_reported_and_the_others_are_classified(
    export, images, probabilities, capsys
):
    whole = (images / "001.png").read_bytes()
    Path("a.png").write_bytes(whole)
    Path("b.png").write_bytes(whole[: len(whole) // 2])
    Path("c.png").write_bytes(whole)
    Path("d.png").write_bytes(b"")  # the last image: the batch before it must not be lost
    assert predict.main(["--name", str(export), "*.png"]) == 1
    out, err = capsys.readouterr()
    assert out == "2 of 4 pictures: predictions in predictions.csv\n"
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["b.png", "d.png"]
    paths, _, table = read("predictions.csv")
    assert paths == ["a.png", "c.png"]
    np.testing.assert_allclose(table, probabilities[[1, 1]], **TOLERANCE)


def test_a_single_damaged_image_is_an_error(export, capsys):
    Path("broken.png").write_bytes(b"\x89PNG")
    assert "broken.png: cannot be read" in refusal(capsys, "--name", export, "broken.png")


def test_missing_images_are_an_error_before_anything_is_loaded(capsys):
    Path("empty").mkdir()
    for argument, words in (
        ("7.png", "7.png: no such file"),
        ("empty", "empty: no picture"),
        ("*.png", "*.png: no picture"),
    ):
        assert words in refusal(capsys, "--name", "nothing", argument)


def test_a_missing_export_is_an_error_with_the_nearest_name(export, images, capsys, monkeypatch):
    monkeypatch.setattr(exports, "HOME", export.parent)
    image = images / "000.png"
    assert predict.main(["--name", "digits", str(image)]) == 0
    capsys.readouterr()
    err = refusal(capsys, "--name", "digit", image)
    assert "no such export" in err
    assert "did you mean 'digits'?" in err
    Path("digits").mkdir()
    Path("digits/digits.onnx.rejected").write_bytes(b"")
    monkeypatch.setattr(exports, "HOME", Path("nowhere"))
    err = refusal(capsys, "--name", "digits", image)
    assert "no digits.onnx; there is digits.onnx.rejected" in err
    err = refusal(capsys, "--name", export / "digits.onnx", image, "--runtime", "jax")
    assert "--runtime jax takes a file ending in .stablehlo" in err


def test_the_projects_own_folders_are_no_exports(images, capsys, monkeypatch, tmp_path):
    for name in ("export", "graph", "serving", "verify"):
        for argument in (name, ROOT / "inference" / name):
            err = refusal(capsys, "--name", argument, images / "000.png")
            assert "no such export" in err
    home = tmp_path / "inference"
    for name in ("verify/__init__.py", "verify/verify.py", "digits/digits.onnx"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"")
    monkeypatch.setattr(exports, "HOME", home)
    err = refusal(capsys, "--name", "verify", images / "000.png")
    assert "no such export" in err
    assert "did you mean" not in refusal(capsys, "--name", "verif", images / "000.png")
    assert "did you mean 'digits'?" in refusal(capsys, "--name", "digit", images / "000.png")


def test_a_runtime_that_is_not_installed_is_an_error(export, images, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    err = refusal(capsys, "--name", export, images / "000.png")
    assert "digits.onnx: its runtime is not installed" in err
    assert "pip install" in err


@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".stablehlo"])
def test_a_damaged_export_is_an_error(suffix, export, images, capsys):
    content = (export / f"digits{suffix}").read_bytes()
    Path(f"cut{suffix}").write_bytes(content[: len(content) // 2])
    err = refusal(capsys, "--name", f"cut{suffix}", images / "000.png")
    assert f"cut{suffix}: not a network that its runtime takes" in err


def test_a_file_without_metadata_is_an_error(export, weights, images, capsys):
    model = onnx.load(export / "digits.onnx")
    del model.metadata_props[:]
    onnx.save(model, "foreign.onnx")
    Path("foreign.stablehlo").write_bytes((export / "digits.stablehlo").read_bytes())
    for name in ("foreign.onnx", "foreign.stablehlo"):
        assert "how to use it" in refusal(capsys, "--name", name, images / "000.png")


def test_an_unknown_preprocessing_is_an_error(weights, images, capsys):
    write_onnx("other.onnx", weights, OUTSIDE | {"name": "my_data:whiten"})
    err = refusal(capsys, "--name", "other.onnx", images / "000.png")
    assert "my_data:whiten" in err
    assert "--preprocess inside" in err
    write_onnx("other.onnx", weights, OUTSIDE | {"args": {"mean": MEAN, "variance": STD}})
    err = refusal(capsys, "--name", "other.onnx", images / "000.png")
    assert "normalize takes no argument 'variance'" in err


@pytest.mark.parametrize("runtime", ["onnx", "jax"])
def test_of_several_outputs_the_one_called_logits_is_used(
    runtime, weights, images, probabilities, capsys
):
    def function(pixels):
        flat = (pixels.reshape(-1, 784).astype(jnp.float32) / 255 - MEAN) / STD
        return {"features": flat[:, :10], "logits": flat @ weights[0] + weights[1]}

    arrays = [network.Array("input", (1, 28, 28), np.uint8)]
    Path("two").mkdir()
    Path("two/two.stablehlo").write_bytes(network.stablehlo(network.describe(function, arrays)))
    metadata = metadata_of(INSIDE)
    shapes = metadata["outputs"]
    metadata["outputs"] = {"features": shapes["logits"], "logits": shapes["logits"]}
    Path("two/report.json").write_text(json.dumps({"metadata": metadata}))
    write_onnx("two/two.onnx", weights, INSIDE)
    model = onnx.load("two/two.onnx")
    features = helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", 784])
    model.graph.output.insert(0, features)
    onnx.save(model, "two/two.onnx")
    arguments = ["--name", "two", "--runtime", runtime, str(images), "--out", "found.csv"]
    assert predict.main(arguments) == 0
    np.testing.assert_allclose(read("found.csv")[2], probabilities, **TOLERANCE)
    capsys.readouterr()
    model.graph.node[-1].output[0] = model.graph.output[1].name = "other"
    onnx.save(model, "two/two.onnx")
    err = refusal(capsys, "--name", "two", images / "000.png")
    assert "gives flat (batch, 784) float32, other (batch, 10) float32; expected" in err


@pytest.mark.parametrize(
    ("inputs", "output", "words"),
    [
        ([[2, 28, 28]], [10], "takes a (batch, 2, 28, 28) float32; expected a picture"),
        ([[784]], [10], "takes a (batch, 784) float32; expected a picture"),
        ([[1, 28, 28]] * 2, [10], "b (batch, 1, 28, 28) float32; expected a picture"),
        ([[1, 28, 28]], [1], "gives y (batch, 1) float32; expected a logit for each class"),
        ([[1, 28, 28]], [1, 28, 28], "gives y (batch, 1, 28, 28) float32; expected a logit"),
        ([[1, 28, 28]], [5], "names for 10 classes, and 5 logits"),
    ],
)
def test_a_network_that_is_no_image_classifier_is_an_error(inputs, output, words, images, capsys):
    names = "ab"[: len(inputs)]
    shape = numpy_helper.from_array(np.array([-1, *output]))
    nodes = [
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("Reshape", ["a", "shape"], ["y"]),
    ]
    described = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sizes])
        for name, sizes in zip([*names, "y"], [*inputs, output], strict=True)
    ]
    save("other.onnx", nodes, described[:-1], described[-1:], {}, metadata_of(None))
    assert words in refusal(capsys, "--name", "other.onnx", images / "000.png")


def test_a_csv_that_cannot_be_written_is_an_error(export, images, capsys):
    err = refusal(capsys, "--name", export, images / "000.png", "--out", "no/where.csv")
    assert "no/where.csv: cannot write predictions there" in err


@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_neither_jax_nor_tensorflow_is_imported(runtime, export, images, script):
    program = (
        "import sys; from inference.predict import main; code = main(sys.argv[1:]);"
        "print(code, {'jax', 'jaxlib', 'tensorflow', 'tf2onnx', 'onnx'} & sys.modules.keys())"
    )
    image = images / "004.png"
    arguments = ["--name", export, "--runtime", runtime, "--top", "1", image]
    done = script("-c", program, *arguments)
    assert done.stdout.split("\n", 1)[0].startswith(f"{image}   four")
    assert done.stdout.endswith("\n0 set()\n")
    assert done.stderr == ""


def test_it_runs_from_any_folder(export, images, script, tmp_path):
    predict_py = ROOT / "inference" / "predict.py"
    done = script(predict_py, "--name", export, "000.png", "--top", "1", cwd=images)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[:2] == ["000.png", "zero"]


def test_the_operators_of_a_file_are_counted(export):
    steps = {"CAST": 1, "DIV": 2, "SUB": 1}
    assert load(export / "digits.tflite").operators == steps | {"RESHAPE": 1, "FULLY_CONNECTED": 1}
    steps = {"Cast": 1, "Div": 2, "Sub": 1}
    assert load(export / "digits.onnx").operators == steps | {"Flatten": 1, "Gemm": 1}
    assert not load(export / "digits.stablehlo").operators
