"""convert_tflite.py exports files that compute the same, or says why it cannot."""

import json
import os
import resource
import signal
from pathlib import Path

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from inference import convert_tflite
from inference.export.atomic_directory import AtomicDirectory
from inference.export.files import check_files
from inference.export.inputs import parse_inputs
from inference.export.network import Array, describe
from inference.export.worker import Worker
from inference.graph import METADATA, tflite_graph, tflite_interface
from inference.serving.exports import HOME
from inference.verify.equivalence import LIMITS, check
from inference.verify.reference import make_reference
from inference.verify.runtimes import load
from tests.helpers.processes import crash
from tests.helpers.project import by_set
from training.config import read_config
from utils import UserError


@pytest.fixture
def arguments(small_run, tmp_path):
    """The arguments of an export into an empty folder."""
    return ["--name", "net", "-w", str(small_run), "--into", str(tmp_path / "into")]


def run_tflite(path, inputs):
    """Runs a file in LiteRT, without the project's own code."""
    interpreter = Interpreter(str(path))
    (details,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(details["index"], inputs.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(details["index"], inputs)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


# The files


@pytest.mark.parametrize("count", by_set([1, 5], [1, 2, 5, 64]))
def test_tflite_onnx_and_stablehlo_compute_what_the_network_does_for_any_batch(
    network, small_export, images, count
):
    inputs = images[:count]
    wanted = np.asarray(network(inputs))
    session = onnxruntime.InferenceSession(small_export / "small.onnx")
    stablehlo = jax.export.deserialize(bytearray((small_export / "small.stablehlo").read_bytes()))
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(
        run_tflite(small_export / "small.tflite", inputs), wanted, atol=2e-5 * scale
    )
    np.testing.assert_allclose(
        session.run(["logits"], {"input": inputs})[0], wanted, atol=2e-5 * scale
    )
    np.testing.assert_allclose(stablehlo.call(inputs)[0], wanted, atol=2e-5 * scale)
    assert {"cpu", "cuda", "tpu"} == set(stablehlo.platforms)


def test_both_formats_carry_metadata_of_the_run_its_inputs_and_outputs(small_run, small_export):
    model = onnx.load(small_export / "small.onnx")
    onnx.checker.check_model(model, full_check=True)
    properties = {one.key: one.value for one in model.metadata_props}
    metadata = json.loads(properties[METADATA])
    file = tflite_graph.load((small_export / "small.tflite").read_bytes())
    assert metadata == tflite_interface.read_metadata(file, METADATA)
    assert metadata["title"] == "MNIST_Sample"
    assert metadata["run"] == small_run.name
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


def test_layer_norm_and_gelu_are_one_operator_each_in_onnx(small_export):
    operators = load(small_export / "small.onnx").operators
    assert operators["LayerNormalization"] == operators["Gelu"] == 1
    gelu = next(node for node in onnx.load(small_export / "small.onnx").graph.node
                if node.op_type == "Gelu")  # fmt: skip
    assert onnx.helper.get_node_attr_value(gelu, "approximate") == b"none"


def test_the_report_has_every_measurement_and_the_sources_are_beside_it(small_run, small_export):
    report = json.loads((small_export / "report.json").read_text())
    assert len(report["files"]) == by_set(3, 6)
    for result in report["files"]:
        assert result["broken"] == []
        assert result["examples"] == 300
        sizes = {f"random, batch {size}" for size in (1, 2, 3, 64, 129)}
        assert sizes < set(result["trials"])
        assert set(result["latency"]) == {"1", "64"}
        assert len(result["first_output"]["logits"]) == 10
    accuracy = report["files"][0]["accuracy"]
    best = max(json.loads(line).get("test_accuracy", 0)
               for line in (small_run / "metrics.jsonl").read_text().splitlines())  # fmt: skip
    assert accuracy == pytest.approx(best)
    page = (small_export / "report.html").read_text()
    assert by_set("small.tflite", "small.int8.tflite") in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert (small_export / "model" / "modules" / "conv.py").is_file()
    assert (small_export / "tests" / "helpers" / "export_networks.py").is_file()
    assert read_config(small_export / "config.json").training.ema == 0.5


# The equivalence check


@pytest.fixture
def doubling():
    """The Reference of a network that doubles its input."""
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


def test_a_file_that_computes_the_same_is_accepted(doubling, tmp_path):
    result = check(onnx_file(tmp_path / "net.onnx", 2), "float32", doubling, LIMITS)
    assert result["broken"] == []
    assert (result["examples"], result["same_class"], result["accuracy"]) == (40, 40, 1.0)
    assert result["operators"] == {"Mul": 1, "Add": 1}


def test_a_file_for_a_fixed_batch_is_run_on_pieces_of_the_test_set(doubling, tmp_path):
    result = check(onnx_file(tmp_path / "net.onnx", 2, batch=7), "float32", doubling, LIMITS)
    assert result["broken"] == []
    assert (result["batch"], result["same_class"]) == (7, 40)


def test_a_small_error_and_another_class_exceed_the_limits_and_are_named(doubling, tmp_path):
    result = check(onnx_file(tmp_path / "net.onnx", 2.001), "float32", doubling, LIMITS)
    assert len(result["broken"]) == 1
    assert result["broken"][0].startswith("error 0.0005 > 2e-05")
    result = check(onnx_file(tmp_path / "net.onnx", -2), "float32", doubling, LIMITS)
    assert [one.split()[0] for one in result["broken"]] == ["error", "agreement"]
    result = check(onnx_file(tmp_path / "net.onnx", -2), "dynamic", doubling, LIMITS)
    assert [one.split()[0] for one in result["broken"]] == ["error", "agreement", "accuracy_loss"]


def test_nan_exceeds_every_limit(doubling, tmp_path):
    result = check(onnx_file(tmp_path / "net.onnx", 2, float("nan")), "float32", doubling, LIMITS)
    assert result["broken"][0].startswith("error inf")


def test_a_file_beyond_a_limit_is_renamed_and_the_limit_named(tmp_path, doubling):
    folder = tmp_path / "out"
    folder.mkdir()
    onnx_file(folder / "net.onnx", 2.001)
    results = check_files(folder / "net", doubling, LIMITS, lambda step: None)
    assert [path.name for path in folder.iterdir()] == ["net.onnx.rejected"]
    assert results[0]["file"] == "net.onnx.rejected"
    assert "error" in results[0]["broken"][0]


# Refusals


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
        (["-w", "nowhere"], "there is no checkpoint here"),
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


@pytest.mark.parametrize(
    "name", ["export", "graph", "serving", "verify", "convert_tflite.py", "__init__.py"]
)
@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_names_of_the_projects_own_files_and_folders_are_refused(capsys, name, more):
    before = {path: path.stat().st_mtime_ns for path in HOME.rglob("*.py")}
    assert convert_tflite.main(["--name", name, *more]) == 1
    error = capsys.readouterr().err
    assert error == f"error: --name: {HOME / name} exists and is no export; choose another name\n"
    assert before == {path: path.stat().st_mtime_ns for path in HOME.rglob("*.py")}


def test_overwriting_needs_an_export_to_replace(arguments, no_tensorflow, tmp_path, capsys):
    (tmp_path / "into" / "net").mkdir(parents=True)
    (tmp_path / "into" / "net" / "thesis.txt").write_text("no export")
    assert convert_tflite.main([*arguments, "--overwrite"]) == 1
    assert "exists and is no export" in capsys.readouterr().err
    assert (tmp_path / "into" / "net" / "thesis.txt").read_text() == "no export"


def test_a_missing_package_is_named(arguments, monkeypatch, capsys):
    monkeypatch.setattr(convert_tflite, "PACKAGES", {"onnx", "a_missing_package"})
    assert convert_tflite.main(arguments) == 1
    assert "not installed: a_missing_package" in capsys.readouterr().err


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


# Workers, directories, inputs, runtimes


def test_a_worker_reports_how_its_process_ended_and_starts_another(tmp_path):
    with Worker(tmp_path / "log") as worker:
        with pytest.raises(UserError, match="was killed by SIGSEGV"):
            worker.run(crash)
        assert worker.run(os.path.basename, "a/b") == "b"
        with pytest.raises(UserError, match=r"int: ValueError: .*'x'"):
            worker.run(int, "x")


def test_an_export_replaces_an_earlier_one_only_when_it_is_published(tmp_path):
    target = tmp_path / "net"
    for content, good in (("first", True), ("second", True), ("third", False)):
        with AtomicDirectory(target) as directory:
            (directory.folder / "file").write_text(content)
            placed = directory.publish(good)
        assert (placed / "file").read_text() == content
    assert (target / "file").read_text() == "second"
    assert placed.name == "net.rejected"
    with pytest.raises(KeyError), AtomicDirectory(target):
        raise KeyError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net", "net.rejected"]


def test_input_is_one_shape_or_several_with_names_and_dtypes():
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


def test_an_export_is_compared_on_the_cpu_whatever_devices_there_are(script):
    code = "import jax; from inference.convert_tflite import compute_on_cpu; compute_on_cpu(); "
    code += "print(jax.config.jax_platforms, jax.default_backend())"
    environment = {**os.environ, "JAX_PLATFORMS": "cuda,cpu"}
    assert script("-c", code, env=environment).stdout.split() == ["cpu", "cpu"]
