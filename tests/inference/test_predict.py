"""predict.py on real digits, judged by NumPy's answer to the same pixels."""

import csv
import gzip
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from data_loader import transforms
from inference import predict
from inference.export import network
from inference.graph import METADATA, tflite_graph
from inference.serving import exports
from inference.serving.classifier import normalize, softmax
from inference.verify.runtimes import load

ROOT = Path(__file__).resolve().parents[2]
MEAN, STD = 0.1307, 0.3081
COUNT = 70  # pictures; more than one batch
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
NORMALIZE = {"name": "normalize", "args": {"mean": MEAN, "std": STD}}
INSIDE, OUTSIDE = ({"where": where, **NORMALIZE} for where in ("inside", "outside"))
# Of probabilities, relative: float32's sums of 784 products, up to 11 in size, are right to about
# 2e-5, and a CSV has six digits.
TOLERANCE = {"rtol": 5e-5}
STATIC = 4  # batch size of the exports that have one


@pytest.fixture(scope="module")
def digits():
    """The first of the real test pictures, (examples, 1, 28, 28) uint8."""
    pixels = gzip.decompress((ROOT / "data/t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    return np.frombuffer(pixels, np.uint8).reshape(-1, 1, 28, 28)[:COUNT]


@pytest.fixture(scope="module")
def pictures(digits, tmp_path_factory):
    """The digits as PNG files in a folder."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, pixels in enumerate(digits):
        Image.fromarray(pixels[0]).save(folder / f"{index:03d}.png")
    return folder


@pytest.fixture(scope="module")
def weights(digits):
    """A linear network's (784, 10) and (10,): near which of ten pictures is a picture?"""
    centres = ((digits[:10].reshape(10, -1) / 255 - MEAN) / STD).astype(np.float32)
    return centres.T / 100, -(centres**2).sum(1) / 200


@pytest.fixture(scope="module")
def chances(digits, weights):
    """NumPy's probabilities, (examples, 10)."""
    features = (digits.reshape(COUNT, -1) / 255 - MEAN) / STD
    powers = np.exp(features @ weights[0] + weights[1])
    return powers / powers.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def export(weights, tmp_path_factory):
    """An export's folder with a file for each runtime, which take pixels; one of fixed batch."""
    folder = tmp_path_factory.mktemp("exports") / "digits"
    folder.mkdir()

    def function(pixels):
        x = (pixels.astype(jnp.float32) / 255 - MEAN) / STD
        return x.reshape(-1, 784) @ weights[0] + weights[1]

    linear = network.describe(function, [network.Array("input", (1, 28, 28), np.uint8)], ["logits"])
    (folder / "digits.stablehlo").write_bytes(network.stablehlo(linear))
    (folder / "report.json").write_text(json.dumps({"metadata": describe(INSIDE)}))
    write_onnx(folder / "digits.onnx", weights, INSIDE)
    write_tflite(folder / "digits.tflite", weights)
    write_tflite(folder / "digits.static.tflite", weights, batch=STATIC)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Tests run in an empty folder."""
    monkeypatch.chdir(tmp_path)


def describe(preprocess, classes=NAMES):
    """The metadata of an export."""
    return {
        "classes": classes,
        "preprocess": preprocess,
        "inputs": {"input": {"shape": ["batch", 1, 28, 28], "dtype": "uint8"}},
        "outputs": {"logits": {"shape": ["batch", 10], "dtype": "float32"}},
    }


def write_onnx(path, weights, preprocess, *, batch="batch", size=(1, 28, 28), **metadata):
    """Writes the linear network as a person would by hand."""
    matrix, bias = weights
    inside = preprocess is None or preprocess["where"] == "inside"
    constants = {"byte": 255, "mean": MEAN, "std": STD, "matrix": matrix, "bias": bias}
    nodes, x = [], "input"
    if inside:
        steps = [("Div", "byte"), ("Sub", "mean"), ("Div", "std")] if preprocess else []
        nodes.append(helper.make_node("Cast", [x], ["float"], to=TensorProto.FLOAT))
        x = "float"
        for kind, constant in steps:
            nodes.append(helper.make_node(kind, [x, constant], [f"{kind}_{constant}"]))
            x = f"{kind}_{constant}"
    nodes.append(helper.make_node("Flatten", [x], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "matrix", "bias"], ["logits"]))
    dtype = TensorProto.UINT8 if inside else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("input", dtype, [batch, *size])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, len(bias)])]
    save(path, nodes, inputs, outputs, constants, describe(preprocess, **metadata))


def write_tflite(path, weights, batch=-1):
    """Writes the linear network, with its preprocessing inside, as a person would by hand."""
    model = schema.ModelT()
    model.version, model.operatorCodes, model.buffers = 3, [], [schema.BufferT()]
    subgraph = schema.SubGraphT()
    model.subgraphs, subgraph.tensors, subgraph.operators = [subgraph], [], []
    graph = tflite_graph.Graph(model, subgraph)

    def tensor(name, *shape, dtype=schema.TensorType.FLOAT32):
        index = graph.add_tensor(name, np.float32, shape)
        graph.tensor(index).name, graph.tensor(index).type = name.encode(), dtype
        return index

    def add(kind, inputs, output, options=None):
        constants = [graph.add_constant("constant", value) for value in inputs[1:]]
        subgraph.operators.append(graph.make(kind, [inputs[0], *constants], [output], options))
        return output

    pixels = tensor("input", batch, 1, 28, 28, dtype=schema.TensorType.UINT8)
    x = add("CAST", [pixels], tensor("float", batch, 1, 28, 28), schema.CastOptionsT())
    for kind, value in (("DIV", 255), ("SUB", MEAN), ("DIV", STD)):
        options = {"DIV": schema.DivOptionsT, "SUB": schema.SubOptionsT}[kind]()
        x = add(kind, [x, np.float32(value)], tensor(f"x{value}", batch, 1, 28, 28), options)
    x = add("RESHAPE", [x, np.int32([-1, 784])], tensor("flat", batch, 784))
    options = schema.FullyConnectedOptionsT()
    x = add("FULLY_CONNECTED", [x, weights[0].T, weights[1]], tensor("logits", batch, 10), options)
    subgraph.inputs, subgraph.outputs = [pixels], [x]
    tflite_graph.write_metadata(model, METADATA, describe(INSIDE))
    path.write_bytes(tflite_graph.dump(model))


def save(path, nodes, inputs, outputs, constants, metadata):
    """Writes an ONNX file."""
    constants = [
        numpy_helper.from_array(np.asarray(value, np.float32), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "network", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if metadata:
        helper.set_model_props(model, {METADATA: json.dumps(metadata)})
    onnx.save(model, path)


def read(path):
    """The paths, predictions and (examples, classes) probabilities of a CSV."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in rows[0] if name.startswith("p_")]
    table = np.array([[float(row[name]) for name in columns] for row in rows])
    return [row["path"] for row in rows], [row["prediction"] for row in rows], table


def refusal(capsys, *arguments):
    """What predict.py says on one line of stderr when it refuses."""
    assert predict.main([str(one) for one in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("runtime", ["onnx", "tflite", "jax"])
def test_every_runtime_says_what_numpy_says(runtime, export, pictures, chances):
    arguments = ["--name", str(export), "--runtime", runtime, "--out", "found.csv"]
    assert predict.main([*arguments, str(pictures)]) == 0
    paths, predictions, table = read("found.csv")
    assert paths == [str(pictures / f"{index:03d}.png") for index in range(COUNT)]
    assert predictions == [NAMES[index] for index in chances.argmax(1)]
    assert predictions[:10] == NAMES
    np.testing.assert_allclose(table, chances, **TOLERANCE)


def test_a_file_of_an_export_is_a_name_too_and_a_fixed_batch_is_filled_up(
    export, pictures, chances
):
    files = [str(pictures / f"{index:03d}.png") for index in range(STATIC + 2)]
    file = export / "digits.static.tflite"
    assert load(file).inputs["input"][0] == (STATIC, 1, 28, 28)
    assert predict.main(["--name", str(file), *files, "--out", "found.csv"]) == 0
    paths, _, table = read("found.csv")
    assert paths == files
    np.testing.assert_allclose(table, chances[: STATIC + 2], **TOLERANCE)


@pytest.mark.parametrize("args", [{"mean": MEAN, "std": STD}, [[MEAN], STD]])
def test_what_the_file_leaves_outside_is_done_in_numpy(args, weights, pictures, chances, tmp_path):
    outside = OUTSIDE | {"args": args}
    write_onnx(tmp_path / "outside.onnx", weights, outside, batch=STATIC)
    arguments = ["--name", "outside.onnx", str(pictures), "--out", "found.csv"]
    assert predict.main(arguments) == 0
    np.testing.assert_allclose(read("found.csv")[2], chances, **TOLERANCE)


def test_pictures_without_preprocessing_go_in_as_they_are(weights, digits, pictures, tmp_path):
    small = weights[0] / 1000, weights[1]
    write_onnx(tmp_path / "raw.onnx", small, None)
    assert predict.main(["--name", "raw.onnx", str(pictures), "--out", "found.csv"]) == 0
    powers = np.exp(digits.reshape(COUNT, -1).astype(float) @ small[0] + small[1])
    expected = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(read("found.csv")[2], expected, **TOLERANCE)


def test_a_picture_is_converted_and_resized_as_in_training(weights, export, tmp_path):
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 56, 3), np.uint8)).save("colours.png")
    grey = Image.open("colours.png").convert("L").resize((28, 28), Image.Resampling.BILINEAR)
    logits = (np.asarray(grey).reshape(-1) / 255 - MEAN) / STD @ weights[0] + weights[1]
    assert predict.main(["--name", str(export), "colours.png", "--out", "found.csv"]) == 0
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(read("found.csv")[2][0], expected, **TOLERANCE)


def test_colours_have_a_mean_each(tmp_path):
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
def test_normalize_is_what_it_is_in_training(mean, std):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), np.uint8)
    expected = np.asarray(transforms.normalize(jnp.asarray(pixels), mean, std))
    came = normalize(pixels, mean, std)
    assert came.dtype == np.float32
    np.testing.assert_allclose(came, expected, rtol=3e-7, atol=3e-7)


def test_softmax_takes_logits_of_any_size():
    np.testing.assert_allclose(softmax([[1e5, 1e5], [-1e5, 1e5]]), [[0.5, 0.5], [0, 1]])
    assert np.isnan(softmax([[np.nan, 1.0]])).all()


def test_a_line_for_each_picture_has_the_likeliest_classes(export, pictures, chances, capsys):
    files = [str(pictures / "007.png"), str(pictures / ".." / pictures.name / "010.png")]
    assert predict.main(["--name", str(export), *files, "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, file, row in zip(lines, files, chances[[7, 10]], strict=True):
        first, second = np.argsort(-row)[:2]
        assert line.split() == [
            file,
            *(NAMES[first], f"{row[first]:.2%}"),
            *(NAMES[second], f"{row[second]:.2%}"),
        ]
    assert len({line.rindex("%") for line in lines}) == 1, "the columns are aligned"
    assert not Path("predictions.csv").exists()


def test_classes_without_names_are_numbers_and_more_than_there_are_can_be_asked_for(
    weights, pictures, capsys
):
    write_onnx("plain.onnx", weights, INSIDE, classes=None)
    picture = str(pictures / "003.png")
    assert predict.main(["--name", "plain.onnx", picture, "--top", "99"]) == 0
    words = capsys.readouterr().out.split()
    assert words[:2] == [picture, "3"]
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


def test_a_damaged_picture_is_told_of_and_the_others_go_on(export, pictures, chances, capsys):
    whole = (pictures / "001.png").read_bytes()
    Path("a.png").write_bytes(whole)
    Path("b.png").write_bytes(whole[: len(whole) // 2])
    Path("c.png").write_bytes(whole)
    Path("d.png").write_bytes(b"")  # the last one: the batch before it must not be lost
    assert predict.main(["--name", str(export), "*.png"]) == 1
    out, err = capsys.readouterr()
    assert out == "2 of 4 pictures: predictions in predictions.csv\n"
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["b.png", "d.png"]
    paths, _, table = read("predictions.csv")
    assert paths == ["a.png", "c.png"]
    np.testing.assert_allclose(table, chances[[1, 1]], **TOLERANCE)


def test_a_picture_that_is_damaged_is_one_error(export, capsys):
    Path("broken.png").write_bytes(b"\x89PNG")
    assert "broken.png: cannot be read" in refusal(capsys, "--name", export, "broken.png")


def test_pictures_that_are_not_there_are_an_error_before_anything_is_loaded(capsys):
    Path("empty").mkdir()
    for argument, words in (
        ("7.png", "7.png: no such file"),
        ("empty", "empty: no picture; expected files ending in .png"),
        ("*.png", "*.png: no picture"),
    ):
        assert words in refusal(capsys, "--name", "nothing", argument)


def test_an_export_that_is_not_there_is_an_error_that_says_which_are(
    export, pictures, capsys, monkeypatch
):
    monkeypatch.setattr(exports, "HOME", export.parent)
    picture = pictures / "000.png"
    assert predict.main(["--name", "digits", str(picture)]) == 0
    capsys.readouterr()
    err = refusal(capsys, "--name", "digit", picture)
    assert "no such export" in err
    assert "did you mean 'digits'?" in err
    Path("digits").mkdir()
    Path("digits/digits.onnx.rejected").write_bytes(b"")
    monkeypatch.setattr(exports, "HOME", Path("nowhere"))
    err = refusal(capsys, "--name", "digits", picture)
    assert "no digits.onnx; there is digits.onnx.rejected" in err
    err = refusal(capsys, "--name", export / "digits.onnx", picture, "--runtime", "jax")
    assert "--runtime jax takes a file ending in .stablehlo" in err


def test_a_runtime_that_is_not_installed_is_an_error(export, pictures, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    err = refusal(capsys, "--name", export, pictures / "000.png")
    assert "digits.onnx: its runtime is not installed" in err
    assert "pip install" in err


@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".stablehlo"])
def test_a_damaged_export_is_an_error(suffix, export, pictures, capsys):
    content = (export / f"digits{suffix}").read_bytes()
    Path(f"cut{suffix}").write_bytes(content[: len(content) // 2])
    err = refusal(capsys, "--name", f"cut{suffix}", pictures / "000.png")
    assert f"cut{suffix}: not a network that its runtime takes" in err


def test_a_file_that_does_not_say_how_to_use_it_is_an_error(export, weights, pictures, capsys):
    model = onnx.load(export / "digits.onnx")
    del model.metadata_props[:]
    onnx.save(model, "foreign.onnx")
    Path("foreign.stablehlo").write_bytes((export / "digits.stablehlo").read_bytes())
    for name in ("foreign.onnx", "foreign.stablehlo"):
        assert "how to use it" in refusal(capsys, "--name", name, pictures / "000.png")


def test_a_preprocessing_that_is_not_known_here_is_an_error(weights, pictures, capsys):
    write_onnx("other.onnx", weights, OUTSIDE | {"name": "my_data:whiten"})
    err = refusal(capsys, "--name", "other.onnx", pictures / "000.png")
    assert "my_data:whiten" in err
    assert "--preprocess inside" in err
    write_onnx("other.onnx", weights, OUTSIDE | {"args": {"mean": MEAN, "variance": STD}})
    err = refusal(capsys, "--name", "other.onnx", pictures / "000.png")
    assert "normalize takes no argument 'variance'" in err


@pytest.mark.parametrize("runtime", ["onnx", "jax"])
def test_of_several_outputs_the_one_called_logits_counts(
    runtime, weights, pictures, chances, capsys
):
    def function(pixels):
        flat = (pixels.reshape(-1, 784).astype(jnp.float32) / 255 - MEAN) / STD
        return {"features": flat[:, :10], "logits": flat @ weights[0] + weights[1]}

    arrays = [network.Array("input", (1, 28, 28), np.uint8)]
    Path("two").mkdir()
    Path("two/two.stablehlo").write_bytes(network.stablehlo(network.describe(function, arrays)))
    metadata = describe(INSIDE)
    shapes = metadata["outputs"]
    metadata["outputs"] = {"features": shapes["logits"], "logits": shapes["logits"]}
    Path("two/report.json").write_text(json.dumps({"metadata": metadata}))
    write_onnx("two/two.onnx", weights, INSIDE)
    model = onnx.load("two/two.onnx")
    features = helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", 784])
    model.graph.output.insert(0, features)
    onnx.save(model, "two/two.onnx")
    arguments = ["--name", "two", "--runtime", runtime, str(pictures), "--out", "found.csv"]
    assert predict.main(arguments) == 0
    np.testing.assert_allclose(read("found.csv")[2], chances, **TOLERANCE)
    capsys.readouterr()
    model.graph.node[-1].output[0] = model.graph.output[1].name = "other"
    onnx.save(model, "two/two.onnx")
    err = refusal(capsys, "--name", "two", pictures / "000.png")
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
def test_a_network_for_something_else_is_an_error(inputs, output, words, pictures, capsys):
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
    save("other.onnx", nodes, described[:-1], described[-1:], {}, describe(None))
    assert words in refusal(capsys, "--name", "other.onnx", pictures / "000.png")


def test_a_csv_that_cannot_be_written_is_an_error(export, pictures, capsys):
    err = refusal(capsys, "--name", export, pictures / "000.png", "--out", "no/where.csv")
    assert "no/where.csv: cannot write predictions there" in err


@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_neither_jax_nor_tensorflow_is_imported(runtime, export, pictures, script):
    program = (
        "import sys; from inference.predict import main; code = main(sys.argv[1:]);"
        "print(code, {'jax', 'jaxlib', 'tensorflow', 'tf2onnx', 'onnx'} & sys.modules.keys())"
    )
    picture = pictures / "004.png"
    arguments = ["--name", export, "--runtime", runtime, "--top", "1", picture]
    done = script("-c", program, *arguments)
    assert done.stdout.split("\n", 1)[0].startswith(f"{picture}   four")
    assert done.stdout.endswith("\n0 set()\n")
    assert done.stderr == ""


def test_it_runs_from_any_folder(export, pictures, script, tmp_path):
    predict_py = ROOT / "inference" / "predict.py"
    done = script(predict_py, "--name", export, "000.png", "--top", "1", cwd=pictures)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[:2] == ["000.png", "zero"]


def test_the_operators_of_a_file_are_counted(export):
    steps = {"CAST": 1, "DIV": 2, "SUB": 1}
    assert load(export / "digits.tflite").operators == steps | {"RESHAPE": 1, "FULLY_CONNECTED": 1}
    steps = {"Cast": 1, "Div": 2, "Sub": 1}
    assert load(export / "digits.onnx").operators == steps | {"Flatten": 1, "Gemm": 1}
    assert not load(export / "digits.stablehlo").operators
