"""A trained network leaves as files that compute the same, or with a message that says why not."""

import json
import os
import resource
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

import train
from data_loader.dataloader import IdxImages
from inference import convert_tflite
from inference.export import converter
from inference.export.atomic_directory import AtomicDirectory
from inference.export.files import check_files
from inference.export.inputs import parse_inputs
from inference.export.network import Array, describe
from inference.export.worker import Worker
from inference.graph import METADATA, tflite_graph
from inference.verify.equivalence import LIMITS, check, make_reference
from inference.verify.runtimes import load
from model.modules import Layers, batch_norm, conv2d, global_average_pool, layer_norm, linear
from tests.helpers.project import ROOT
from training.checkpoint.naming import find
from training.checkpoint.reading import read
from training.checkpoint.restore import network_params
from training.config import read_config
from training.engine.build import build
from training.engine.initialize import restored_params
from utils import UserError

# On 300 test examples one mistake is 0.33 points.
LENIENT = ["--limit", "dynamic.accuracy_loss=0.03", "int8.accuracy_loss=0.1",
           "float16.agreement=0.99"]  # fmt: skip
QUANTIZED = ("float16", "dynamic", "int8")


def small(x, *, params=None, key=None, train=False):
    """A network of most of what networks are made of."""
    layer = Layers(params, key, train)
    x = jax.numpy.moveaxis(x, 1, -1)
    x = layer("stem", conv2d, x, 4, 4, stride=4, bias=False)
    x = x + layer("depthwise", conv2d, layer("norm", layer_norm, x), 4, 3, groups=4)
    x = jax.nn.gelu(layer("expand", conv2d, x, 8, 1), approximate=False)
    x = jax.nn.relu(layer("statistics", batch_norm, x))
    x = layer("pool", global_average_pool, x)
    return layer("head", linear, x, 10), layer.params


def running_product(x, *, params=None, key=None, train=False):
    """A network with an operator that TFLite has and ONNX has not."""
    layer = Layers(params, key, train)
    x = layer("product", _product, x)
    return layer("head", linear, x, 10), layer.params


def _product(x, *, params=None, key=None, train=False):
    return jax.numpy.cumprod(1 + x.mean((1, 2)) / 10, axis=-1), {}


def sorting(x, *, params=None, key=None, train=False):
    """A network with an operator that TFLite has not."""
    layer = Layers(params, key, train)
    x = layer("order", _sort, x.reshape(len(x), -1))
    return layer("head", linear, x, 10), layer.params


def _sort(x, *, params=None, key=None, train=False):
    return jax.numpy.sort(x), {}


def make_run(config, folder, network, **training):
    """Trains a network a little; returns the run folder."""
    values = json.loads(json.dumps(config))
    values["model"] = {"name": f"{__name__}:{network}"}
    values["training"] |= {"epochs": 1, "save_dir": str(folder / "saved")} | training
    path = folder / "config.json"
    path.write_text(json.dumps(values))
    assert train.main(["-c", str(path)]) == 0
    return next((folder / "saved").glob("*/*"))


@pytest.fixture(scope="session")
def session_config(mnist):
    values = json.loads((ROOT / "config.json").read_text())
    for split in ("train", "test"):
        args = values["data_loader"][split]["args"]
        args |= {"dataset": {"name": "IdxImages", "args": {"root": str(mnist), "split": split}}}
        args["batch_size"] = 128
    return values


@pytest.fixture(scope="session")
def trained(session_config, tmp_path_factory):
    """A run with a moving average of its weights."""
    return make_run(session_config, tmp_path_factory.mktemp("trained"), "small", ema=0.5)


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    """The run's export with every kind of file."""
    into = tmp_path_factory.mktemp("exported")
    arguments = ["--name", "small", "-w", str(trained), "--into", str(into), "--input", "1 1 28 28"]
    assert convert_tflite.main([*arguments, "--quantize", *QUANTIZED, *LENIENT]) == 0
    return into / "small"


@pytest.fixture
def arguments(trained, tmp_path):
    """Of an export into an empty folder."""
    return ["--name", "net", "-w", str(trained), "--into", str(tmp_path / "into")]


@pytest.fixture
def no_tensorflow(monkeypatch):
    """Leaves TensorFlow out where an export does not come that far."""
    monkeypatch.setattr(converter, "import_tensorflow", no_import)


def no_import():
    """Imports nothing."""


def crash(*_):
    """Ends the process as a fault in a library does."""
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.fixture(scope="session")
def pictures(session_config):
    """Pictures of the test set, as they are stored."""
    args = session_config["data_loader"]["test"]["args"]["dataset"]["args"]
    return IdxImages(**args).images


def network_of(run):
    """What training's own evaluation computes, from the moving average of the weights."""
    checkpoint = find(run, prefer_best=True)
    experiment = build(read_config(run / "config.json"))
    params = restored_params(experiment, network_params(read(checkpoint)[0]), checkpoint)
    return jax.jit(lambda inputs: experiment.forward(params, inputs, None, False)[0])


@pytest.fixture(scope="session")
def network(trained):
    """The trained network as a function of stored pictures."""
    return network_of(trained)


def run_tflite(path, inputs):
    """Runs a file in LiteRT, without the project's own code."""
    interpreter = Interpreter(str(path))
    (details,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(details["index"], inputs.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(details["index"], inputs)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


# ---- the files ----


@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_tflite_onnx_and_stablehlo_compute_what_the_network_does_for_any_batch(
    network, exported, pictures, count
):
    inputs = pictures[:count]
    wanted = np.asarray(network(inputs))
    session = onnxruntime.InferenceSession(exported / "small.onnx")
    stablehlo = jax.export.deserialize(bytearray((exported / "small.stablehlo").read_bytes()))
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(
        run_tflite(exported / "small.tflite", inputs), wanted, atol=2e-5 * scale
    )
    np.testing.assert_allclose(
        session.run(["logits"], {"input": inputs})[0], wanted, atol=2e-5 * scale
    )
    np.testing.assert_allclose(stablehlo.call(inputs)[0], wanted, atol=2e-5 * scale)
    assert {"cpu", "cuda", "tpu"} == set(stablehlo.platforms)


def test_quantised_files_take_and_give_what_the_float_file_does(network, exported, pictures):
    wanted = np.asarray(network(pictures[:7]))
    for kind in QUANTIZED:
        path = exported / f"small.{kind}.tflite"
        loaded = load(path)
        assert loaded.inputs == {"input": (("batch", 1, 28, 28), np.uint8)}
        assert loaded.outputs == {"logits": (("batch", 10), np.float32)}
        difference = np.abs(loaded.run({"input": pictures[:7]})["logits"] - wanted).max()
        assert 0 < difference < 0.3 * np.abs(wanted).max()
    assert load(exported / "small.int8.tflite").operators["QUANTIZE"] > 0


def test_both_formats_tell_where_they_come_from_and_what_goes_in_and_out(trained, exported):
    model = onnx.load(exported / "small.onnx")
    onnx.checker.check_model(model, full_check=True)
    properties = {one.key: one.value for one in model.metadata_props}
    metadata = json.loads(properties[METADATA])
    file = tflite_graph.load((exported / "small.tflite").read_bytes())
    assert metadata == tflite_graph.read_metadata(file, METADATA)
    assert metadata["title"] == "MNIST_Sample"
    assert metadata["run"] == trained.name
    assert metadata["classes"] == list("0123456789")
    assert metadata["preprocess"] == {
        "where": "inside",
        "name": "normalize",
        "args": {"mean": 0.1307, "std": 0.3081},
    }
    assert metadata["inputs"] == {"input": {"shape": ["batch", 1, 28, 28], "dtype": "uint8"}}
    (shape,) = ([one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim]
                for value in model.graph.input)  # fmt: skip
    assert shape == ["batch", 1, 28, 28]


def test_layer_norm_and_gelu_are_one_operator_each_in_onnx(exported):
    operators = load(exported / "small.onnx").operators
    assert operators["LayerNormalization"] == operators["Gelu"] == 1
    gelu = next(node for node in onnx.load(exported / "small.onnx").graph.node
                if node.op_type == "Gelu")  # fmt: skip
    assert onnx.helper.get_node_attr_value(gelu, "approximate") == b"none"


def test_the_report_holds_the_contract_and_the_sources_lie_beside_it(trained, exported):
    report = json.loads((exported / "report.json").read_text())
    assert len(report["files"]) == 6
    for result in report["files"]:
        assert result["broken"] == []
        assert result["examples"] == 300
        assert set(result["random"]) == {"1", "3", "64"}
        assert set(result["latency"]) == {"1", "64"}
        assert len(result["first_output"]["logits"]) == 10
    accuracy = report["files"][0]["accuracy"]
    best = max(json.loads(line).get("test_accuracy", 0)
               for line in (trained / "metrics.jsonl").read_text().splitlines())  # fmt: skip
    assert accuracy == pytest.approx(best)
    page = (exported / "report.html").read_text()
    assert "small.int8.tflite" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert (exported / "model" / "modules" / "conv.py").is_file()
    assert (exported / "tests" / "inference" / "test_convert_tflite.py").is_file()
    assert read_config(exported / "config.json").training.ema == 0.5


def test_exporting_again_from_elsewhere_gives_the_same_bytes(script, trained, exported, tmp_path):
    first = tmp_path / "small"
    shutil.copytree(exported, first)
    command = [ROOT / "inference" / "convert_tflite.py", "--name", "small", "-w", trained]
    refused = script(*command, "--into", ".", cwd=tmp_path)
    assert refused.returncode == 1
    assert "--overwrite" in refused.stderr
    again = script(
        *command, "--into", ".", "--overwrite", "--input", "(1, 1, 28, 28)",
        "--quantize", *QUANTIZED, *LENIENT, cwd=tmp_path,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""  # nothing of TensorFlow's
    assert "Look at small/report.html" in again.stdout
    files = sorted(path.name for path in exported.glob("small*"))
    assert files == sorted(path.name for path in first.glob("small*"))
    for name in files:
        assert (first / name).read_bytes() == (exported / name).read_bytes(), name


def test_what_onnx_cannot_hold_is_refused_by_name_and_the_other_files_are_kept(
    session_config, pictures, tmp_path, capsys
):
    run = make_run(session_config, tmp_path, "running_product")
    arguments = ["--name", "sums", "-w", str(run), "--into", str(tmp_path)]
    code = convert_tflite.main([*arguments, "--preprocess", "outside", "--static", "4"])
    assert code == 1
    folder = tmp_path / "sums"
    report = json.loads((folder / "report.json").read_text())
    results = {result["file"]: result for result in report["files"]}
    assert "STABLEHLO_REDUCE_WINDOW (layer product)" in results["sums.onnx"]["broken"][0]
    assert not (folder / "sums.onnx").exists()
    assert results["sums.tflite"]["broken"] == []
    loaded = load(folder / "sums.tflite")
    assert loaded.inputs == {"input": ((4, 1, 28, 28), np.float32)}
    normalised = (pictures[:4].astype(np.float32) / 255 - 0.1307) / 0.3081
    wanted = np.asarray(network_of(run)(pictures[:4]))
    np.testing.assert_allclose(
        loaded.run({"input": normalised})["logits"], wanted, atol=2e-5 * np.abs(wanted).max()
    )
    assert "sums.onnx" in capsys.readouterr().out


# ---- the contract ----


@pytest.fixture
def doubling():
    """A network that doubles, and the reference it is held against."""
    network = describe(lambda x: 2 * x, [Array("input", (3,), np.dtype(np.float32))], ["logits"])
    batches = [(np.random.default_rng(seed).normal(size=(20, 3)).astype(np.float32),)
               for seed in range(2)]  # fmt: skip
    labels = np.concatenate([one.argmax(-1) for (one,) in batches])
    return make_reference(jax.jit(network.function), lambda x: (x,), network, batches, labels)


def onnx_file(path, factor, shift=0.0, batch="batch"):
    """Writes an ONNX file of factor * x + shift."""
    sizes = [batch, 3]
    nodes = [
        onnx.helper.make_node("Mul", ["input", "factor"], ["scaled"]),
        onnx.helper.make_node("Add", ["scaled", "shift"], ["logits"]),
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [value("input", onnx.TensorProto.FLOAT, sizes)],
        [value("logits", onnx.TensorProto.FLOAT, sizes)],
        [
            onnx.numpy_helper.from_array(np.float32([factor] * 3), "factor"),
            onnx.numpy_helper.from_array(np.float32(shift), "shift"),
        ],
    )
    opsets = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_a_file_that_computes_the_same_is_good(doubling, tmp_path):
    result = check(onnx_file(tmp_path / "net.onnx", 2), "float32", doubling, LIMITS)
    assert result["broken"] == []
    assert (result["examples"], result["same_class"], result["accuracy"]) == (40, 40, 1.0)
    assert result["operators"] == {"Mul": 1, "Add": 1}


def test_a_file_for_a_fixed_batch_is_run_in_pieces_of_it(doubling, tmp_path):
    result = check(onnx_file(tmp_path / "net.onnx", 2, batch=7), "float32", doubling, LIMITS)
    assert result["broken"] == []
    assert (result["batch"], result["same_class"], list(result["random"])) == (7, 40, [7])


def test_a_small_error_and_another_class_break_the_limits_and_are_told(doubling, tmp_path):
    result = check(onnx_file(tmp_path / "net.onnx", 2.001), "float32", doubling, LIMITS)
    assert len(result["broken"]) == 1
    assert result["broken"][0].startswith("error 0.0005 > 2e-05")
    result = check(onnx_file(tmp_path / "net.onnx", -2), "float32", doubling, LIMITS)
    assert [one.split()[0] for one in result["broken"]] == ["error", "agreement"]
    result = check(onnx_file(tmp_path / "net.onnx", -2), "dynamic", doubling, LIMITS)
    assert result["broken"] == ["accuracy_loss 1 > 0.001"]


def test_nan_is_beyond_every_limit(doubling, tmp_path):
    result = check(onnx_file(tmp_path / "net.onnx", 2, float("nan")), "float32", doubling, LIMITS)
    assert result["broken"][0].startswith("error inf")


def test_a_file_beyond_a_limit_is_renamed_and_the_limit_named(
    exported, trained, tmp_path, doubling
):
    folder = tmp_path / "out"
    folder.mkdir()
    onnx_file(folder / "net.onnx", 2.001)
    results = check_files(folder / "net", doubling, LIMITS, lambda step: None)
    assert [path.name for path in folder.iterdir()] == ["net.onnx.rejected"]
    assert results[0]["file"] == "net.onnx.rejected"
    assert "error" in results[0]["broken"][0]


# ---- refusals ----


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--input", "(1, 1, 32, 32)"], "does not fit the run's data"),
        (["--input", "(1, 1, 28, 28) int64"], "expected their dtype or float32"),
        (["--input", "twentyeight"], "is no shape"),
        (["--input", "(1, 1, 28, 28) flot32"], "no dtype is called 'flot32'"),
        (["--name", "../net"], "is no folder's name"),
        (["--static", "0"], "at least 1"),
        (["--limit", "float32.err=1"], "KIND.NAME=VALUE"),
        (["--part", "head"], "needs its inputs named"),
        (["--part", "tail", "--input", "(1, 4) float32"], "no part 'tail'"),
        (["-w", "nowhere"], "there is no best checkpoint here"),
        (["model.name=mlp"], "does not fit"),
        (["modl.name=mlp"], "unknown key"),
    ],
)
def test_bad_arguments_get_one_clear_message_and_leave_nothing(
    arguments, no_tensorflow, tmp_path, capsys, more, message
):
    assert convert_tflite.main([*arguments, *more]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("into/*"))


def test_an_operator_without_counterpart_is_named_with_its_layer_and_a_way_out(
    session_config, no_tensorflow, tmp_path, capsys
):
    run = make_run(session_config, tmp_path, "sorting")
    arguments = ["--name", "net", "-w", str(run), "--into", str(tmp_path / "into")]
    assert convert_tflite.main(arguments) == 1
    error = capsys.readouterr().err
    assert "layer order" in error
    assert "test_convert_tflite.py" in error
    assert "argmax" in error


def test_a_missing_package_is_named(arguments, monkeypatch, capsys):
    monkeypatch.setattr(convert_tflite, "PACKAGES", {"onnx", "a_missing_package"})
    assert convert_tflite.main(arguments) == 1
    assert "not installed: a_missing_package" in capsys.readouterr().err


def test_a_crash_inside_tensorflow_is_one_message_and_an_earlier_export_stays(
    arguments, no_tensorflow, monkeypatch, tmp_path, capsys
):
    earlier = tmp_path / "into" / "net"
    earlier.mkdir(parents=True)
    (earlier / "net.onnx").write_text("the earlier one")
    monkeypatch.setattr(converter, "to_tflite", crash)
    assert convert_tflite.main([*arguments, "--overwrite"]) == 1
    assert "was killed by SIGSEGV" in capsys.readouterr().err
    assert [path.name for path in earlier.iterdir()] == ["net.onnx"]
    assert not [path for path in earlier.parent.iterdir() if path.name.endswith(".tmp")]


def test_a_full_disk_is_one_message_and_leaves_nothing(arguments, no_tensorflow, tmp_path, capsys):
    (tmp_path / "into").mkdir()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        assert convert_tflite.main(arguments) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert "make room there" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "into").iterdir() if path.is_dir()]


# ---- their parts ----


def test_a_worker_tells_how_its_process_ended_and_goes_on_with_another(tmp_path):
    with Worker(tmp_path / "log") as worker:
        with pytest.raises(UserError, match="was killed by SIGSEGV"):
            worker.run(crash)
        assert worker.run(os.path.basename, "a/b") == "b"
        with pytest.raises(UserError, match=r"int: ValueError: .*'x'"):
            worker.run(int, "x")


def test_an_export_takes_its_place_only_once_it_is_published(tmp_path):
    target = tmp_path / "net"
    for content, good in (("first", True), ("second", True), ("third", False)):
        with AtomicDirectory(target) as staging:
            (staging.folder / "file").write_text(content)
            placed = staging.publish(good)
        assert (placed / "file").read_text() == content
    assert (target / "file").read_text() == "second"
    assert placed.name == "net.rejected"
    with pytest.raises(KeyError), AtomicDirectory(target):
        raise KeyError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net", "net.rejected"]


def test_input_is_a_shape_or_several_with_names_and_dtypes():
    plain = [Array("input", (1, 28, 28), None)]
    assert parse_inputs(["1", "1", "28", "28"]) == plain
    assert parse_inputs(["(1, 1, 28, 28)"]) == plain
    assert parse_inputs(["[1,1,28,28]"]) == plain
    assert parse_inputs(["1,1,28,28", "uint8"]) == [Array("input", (1, 28, 28), np.uint8)]
    assert parse_inputs(["tokens=(1, 16) int32", "picture=(1, 1, 28, 28)"]) == [
        Array("tokens", (16,), np.int32),
        Array("picture", (1, 28, 28), None),
    ]


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    for name in ("net.tflite", "net.onnx", "net.stablehlo"):
        path = tmp_path / name
        path.write_bytes(b"not a network" * 10)
        with pytest.raises(UserError, match="not a network that its runtime takes"):
            load(path)
    with pytest.raises(UserError, match="there is no such file"):
        load(Path("nowhere.onnx"))
    with pytest.raises(UserError, match=r"\.tflite, \.onnx, \.stablehlo"):
        load(Path("net.pt"))
