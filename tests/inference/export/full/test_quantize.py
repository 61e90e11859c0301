"""Smaller files keep what the network decides, and name the scales of what is in whole numbers."""

import json
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter

from inference.export import files
from inference.export.converter import import_tensorflow
from inference.export.network import Array, describe
from inference.export.trained import Trained
from inference.export.worker import Worker
from inference.graph import METADATA, tflite_graph, tflite_interface
from inference.verify.equivalence import LIMITS
from inference.verify.reference import make_reference
from inference.verify.runtimes import load

RANDOM = np.random.default_rng(0)
KINDS = ("int8", "int8-io", "onnx-float16", "onnx-int8")


def array(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32) / np.sqrt(shape[0])


def classifier():
    """A network with softmax as an output and used further."""
    first, second = (array(6, 32), array(32)), array(32, 5)

    def network(x):
        p = jax.nn.softmax(jax.nn.relu(x @ first[0] + first[1]) @ second)
        return {"label": p.argmax(-1), "most": p.max(-1), "p": p}

    return network, (6,)


def recurrent():
    """A loop of a known length over a gated cell."""
    inside, around, out = array(4, 16), array(8, 16), array(8, 3)

    def step(state, x):
        update, new = jnp.split(x @ inside + state @ around, 2, -1)
        update = jax.nn.sigmoid(update)
        state = update * state + (1 - update) * jnp.tanh(new)
        return state, state

    def network(x):
        start = jnp.zeros((x.shape[0], 8))
        return {"y": jax.lax.scan(step, start, x.swapaxes(0, 1))[0] @ out}

    return network, (7, 4)


def exported(make, folder, worker):
    """Writes and checks the files of a network; returns the Network, and the results by name."""
    function, shape = make()
    network = describe(function, [Array("x", shape, np.dtype(np.float32))])
    data = [RANDOM.standard_normal((50, *shape)).astype(np.float32) for _ in range(3)]
    reference = make_reference(
        jax.jit(network.function), lambda *raw: raw, network, [(data[0],)], None
    )
    trained = Trained(network, reference, [{"x": one} for one in data[1:]])
    refused = files.make_files(trained, folder / "net", worker, lambda line: None, None, KINDS)
    results = files.check_files(folder / "net", reference, LIMITS, lambda line: None) + refused
    return network, {one["file"]: one for one in results}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """{"classifier" or "recurrent": (folder, Network, results)}."""
    found = {}
    with Worker(tmp_path_factory.mktemp("log") / "log", import_tensorflow) as worker:
        for make in (classifier, recurrent):
            folder = tmp_path_factory.mktemp(make.__name__)
            found[make.__name__] = (folder, *exported(make, folder, worker))
    return found


@pytest.mark.parametrize("network", ["classifier", "recurrent"])
def test_every_kind_is_made_and_keeps_within_its_limits(made, network):
    _, _, results = made[network]
    endings = ("onnx", "tflite", "stablehlo", "int8.tflite", "int8-io.tflite", "float16.onnx",
               "int8.onnx")  # fmt: skip
    assert {f"net.{ending}": [] for ending in endings} == {
        name: one["broken"] for name, one in results.items()
    }


def test_int8_inputs_and_outputs_have_scales_that_the_metadata_name(made):
    folder, network, _ = made["classifier"]
    path, x = folder / "net.int8-io.tflite", RANDOM.standard_normal((5, 6)).astype(np.float32)
    interpreter = Interpreter(str(path))
    (entry,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(entry["index"], x.shape)
    interpreter.allocate_tensors()
    metadata = tflite_interface.read_metadata(tflite_graph.load(path.read_bytes()), METADATA)
    about = metadata["inputs"]["x"]
    assert about == {
        "shape": ["batch", 6], "dtype": "int8", "scale": entry["quantization"][0],
        "zero_point": entry["quantization"][1],
    }  # fmt: skip
    whole = np.clip(np.round(x / about["scale"]) + about["zero_point"], -128, 127)
    interpreter.set_tensor(entry["index"], whole.astype(np.int8))
    interpreter.invoke()
    p = {one["name"]: interpreter.get_tensor(one["index"])
         for one in interpreter.get_output_details()}["p"]  # fmt: skip
    assert p.dtype == np.int8
    about = metadata["outputs"]["p"]
    wanted = jax.device_get(network.function(x))[2]
    np.testing.assert_allclose(
        about["scale"] * (p.astype(float) - about["zero_point"]), wanted, atol=0.1
    )
    np.testing.assert_allclose(load(path).run({"x": x})["p"], wanted, atol=0.1)


@pytest.mark.skipif(not shutil.which("cc"), reason="no compiler of C")
def test_the_c_header_has_the_bytes_of_the_file_and_the_scales(made, tmp_path):
    folder, _, _ = made["classifier"]
    files.write_headers(folder / "net")
    content = (folder / "net.int8-io.tflite").read_bytes()
    about = tflite_interface.read_metadata(tflite_graph.load(content), METADATA)["inputs"]["x"]
    (tmp_path / "main.c").write_text(
        f'#include "{folder / "net.int8-io.tflite.h"}"\n#include <stdio.h>\n'
        "int main(void) {\n"
        '  fprintf(stderr, "%.9g %d", net_int8_io_x_scale, net_int8_io_x_zero_point);\n'
        "  return fwrite(net_int8_io, 1, net_int8_io_len, stdout) != net_int8_io_len;\n}\n"
    )
    subprocess.run(["cc", "main.c", "-o", "main"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, check=True)
    assert done.stdout == content
    scale, zero_point = done.stderr.split()
    assert float(scale) == pytest.approx(about["scale"], rel=1e-6)
    assert int(zero_point) == about["zero_point"]


def test_the_onnx_files_compute_in_16_and_in_8_bits(made):
    folder, _, results = made["classifier"]
    half = onnx.load(folder / "net.float16.onnx")
    types = {one.data_type for one in half.graph.initializer if len(one.dims) == 2}
    assert types == {onnx.TensorProto.FLOAT16}
    assert results["net.int8.onnx"]["operators"]["DequantizeLinear"] > 2
    for name in ("net.float16.onnx", "net.int8.onnx"):
        about = {one.key: one.value for one in onnx.load(folder / name).metadata_props}
        assert json.loads(about[METADATA])["inputs"]["x"]["dtype"] == "float32"


def test_a_loop_of_a_known_length_is_unrolled_for_int8(made):
    folder, _, _ = made["recurrent"]
    assert load(folder / "net.tflite").operators["WHILE"] == 1
    operators = load(folder / "net.int8.tflite").operators
    assert operators["WHILE"] == 0
    assert operators["LOGISTIC"] >= 7
