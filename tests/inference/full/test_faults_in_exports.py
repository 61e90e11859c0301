"""The equivalence check catches 200 seeded faults of exported files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference.export.converter import import_tensorflow, to_raw_onnx, to_tflite
from inference.export.network import Array, describe, lower
from inference.export.worker import Worker
from inference.graph.onnx_graph import finish
from inference.verify.equivalence import LIMITS, check
from inference.verify.reference import make_reference
from inference.verify.trials import edge_inputs, random_inputs
from model.modules import conv2d, embedding, layer_norm
from tests.helpers.faults_in_exports import faulty

FAULTS = 200
RANDOM = np.random.default_rng(0)
FLOAT, INT = np.dtype(np.float32), np.dtype(np.int32)


def array(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32) / np.sqrt(shape[0])


def pictures():
    """Convolution, layer norm, GELU, pooling, a dense layer: the operators of the sample."""
    params = {"kernel": array(3, 3, 2, 4), "bias": array(4)}
    norm, head = {"scale": 1 + array(4), "bias": array(4)}, (array(4, 3), array(3))

    def network(x):
        x, _ = conv2d(x, 4, 3, stride=2, params=params)
        x = jax.nn.gelu(layer_norm(x, params=norm)[0])
        return x.mean((1, 2)) @ head[0] + head[1]

    return network, [Array("x", (6, 6, 2), FLOAT)], [(RANDOM.normal(size=(20, 6, 6, 2)),)]


def sequences():
    """Tokens, lengths, a mask, both types of division, two outputs."""
    table, matrix, bias = {"table": array(9, 4)}, array(4, 3), array(3)

    def network(token, length):
        x = embedding(token, 9, 4, params=table)[0]
        x = jnp.where((jnp.arange(5) < length[:, None])[..., None], x, 0).sum(1)
        return {"y": jnp.tanh(x @ matrix + bias), "rest": (length - 20) % 3, "turn": length // 7}

    data = RANDOM.integers(0, 9, (20, 5)), RANDOM.integers(1, 6, 20)
    return network, [Array("token", (5,), INT), Array("length", (), INT)], [data]


def numbers():
    """Two dense layers and elementwise functions."""
    first, second = (array(4, 5), array(5)), (array(5, 3), array(3))

    def network(x):
        x = jax.nn.sigmoid(x @ first[0] + first[1]) - 0.3
        return {"a": jnp.tanh(x) @ second[0] + second[1], "b": jnp.maximum(x, 0.1) / 1.7}

    return network, [Array("x", (4,), FLOAT)], [(RANDOM.normal(size=(20, 4)),)]


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """(Reference, suffix, bytes of the file) of each network and format."""
    found = []
    with Worker(tmp_path_factory.mktemp("converter") / "log", import_tensorflow) as worker:
        for make in (pictures, sequences, numbers):
            function, inputs, data = make()
            network = describe(function, inputs)
            dtypes = [one.dtype for one in inputs]
            batches = [tuple(map(np.asarray, batch, dtypes)) for batch in data]
            reference = make_reference(
                jax.jit(network.function), lambda *raw: raw, network, batches, None
            )
            lowered = [lower(network, size) for size in (2, 3)]
            tflite = worker.run(to_tflite, lowered, network.names)
            onnx = finish(worker.run(to_raw_onnx, tflite), network.names)
            found += [(reference, ".tflite", tflite), (reference, ".onnx", onnx)]
    return found


def same_values(path, original, reference):
    """Whether two files agree on many other inputs: the fault then changes nothing."""
    from inference.verify.runtimes import load

    files, names = [load(path), load(original)], [one.name for one in reference.inputs]
    for seed in range(10, 14):
        others = {"random": random_inputs(reference.spans, 256, seed)}
        for inputs in (others | edge_inputs(reference.spans, seed)).values():
            results = [one.run(dict(zip(names, inputs, strict=True))) for one in files]
            for name, wanted in results[1].items():
                scale = max(1e-6, np.nanmax(np.abs(wanted.astype(float)), initial=0))
                if not np.allclose(results[0][name] / scale, wanted / scale, atol=2e-5, rtol=0,
                                   equal_nan=True):  # fmt: skip
                    return False
    return True


def test_200_faults_put_into_exported_files_are_all_caught(exports, tmp_path):
    tried, missed, without_effect, seed = 0, [], 0, 0
    for reference, suffix, content in exports:
        path = tmp_path / f"right{suffix}"
        path.write_bytes(content)
        assert check(path, "float32", reference, LIMITS)["broken"] == []
    while tried < FAULTS:
        reference, suffix, content = exports[seed % len(exports)]
        fault = faulty(content, suffix, seed // len(exports))
        seed += 1
        if fault is None:
            continue
        words, changed = fault
        path, right = (tmp_path / f"{name}{suffix}" for name in ("wrong", "right"))
        path.write_bytes(changed)
        right.write_bytes(content)
        if not check(path, "float32", reference, LIMITS)["broken"]:
            if same_values(path, right, reference):
                without_effect += 1
                continue
            missed.append(f"{suffix}, seed {seed}: {words}")
        tried += 1
    assert missed == []
    assert without_effect < FAULTS / 4
