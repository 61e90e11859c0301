"""What the tests of inference/ share: real images, a trained run, and its export."""

import fcntl
import gzip
import json
import math
import os
import shutil
import subprocess

import jax
import numpy as np
import pytest

import train
from inference import convert_tflite
from inference.export import converter
from inference.serving import static
from tests.helpers.demo import HOSTILE, RGB
from tests.helpers.exports import INSIDE, LENIENT, QUANTIZED, write_onnx, write_tflite
from tests.helpers.processes import no_import
from tests.helpers.project import ROOT, by_set
from training.checkpoint.naming import find
from training.checkpoint.reading import read
from training.checkpoint.restore import network_params
from training.config import read_config
from training.engine.build import build
from training.engine.initialize import restored_params


@pytest.fixture(scope="session")
def mnist_images():
    """The first of the real test images, (examples, 28, 28) uint8."""
    pixels = gzip.decompress((ROOT / "data/t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    return np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28)[:1000]


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """`once(name, make)` fills a folder by `make(folder)`, once for all processes of a session."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name, make):
        folder, done = shared / name, shared / f"{name}.done"
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def train_network(mnist):
    """`train_network(folder, name)` trains a network of tests/helpers/export_networks.py.

    It trains one epoch and returns the run folder.
    """
    config = json.loads((ROOT / "config.json").read_text())
    for split in ("train", "test"):
        args = config["data_loader"][split]["args"]
        args |= {"dataset": {"name": "IdxImages", "args": {"root": str(mnist), "split": split}}}
        args["batch_size"] = 128

    def train_network(folder, name, **training):
        values = json.loads(json.dumps(config))
        values["model"] = {"name": f"tests.helpers.export_networks:{name}"}
        values["training"] |= {"epochs": 1, "save_dir": str(folder / "saved")} | training
        path = folder / "config.json"
        path.write_text(json.dumps(values))
        assert train.main(["-c", str(path)]) == 0
        return next((folder / "saved").glob("*/*"))

    return train_network


@pytest.fixture(scope="session")
def small_run(once, train_network):
    """A run of the network `small`, with a moving average of its weights."""
    folder = once("small_run", lambda folder: train_network(folder, "small", ema=0.5))
    return next((folder / "saved").glob("*/*"))


@pytest.fixture(scope="session")
def small_export(once, small_run):
    """The export of that run, in the full set also quantised; tests do not change it."""

    def make(folder):
        arguments = ["--name", "small", "-w", str(small_run), "--into", str(folder)]
        arguments += ["--input", "1 1 28 28"]
        arguments += by_set([], ["--quantize", *QUANTIZED, *LENIENT])
        assert convert_tflite.main(arguments) == 0

    return once("small_export", make) / "small"


@pytest.fixture(scope="session")
def network_of():
    """`network_of(run)` is the network as training evaluates it: a function of stored images."""

    def network_of(run):
        checkpoint = find(run, prefer_best=True)
        experiment = build(read_config(run / "config.json"))
        params = restored_params(experiment, network_params(read(checkpoint)[0]), checkpoint)
        return jax.jit(lambda inputs: experiment.forward(params, inputs, None, False)[0])

    return network_of


@pytest.fixture(scope="session")
def network(network_of, small_run):
    """The network of `small_run` as a function of stored images."""
    return network_of(small_run)


@pytest.fixture(scope="session")
def images(mnist_images):
    """Images of the test set, (examples, 1, 28, 28) uint8."""
    return mnist_images[:, None]


@pytest.fixture
def no_tensorflow(monkeypatch):
    """Does not import TensorFlow, for exports that end before they need it."""
    monkeypatch.setattr(converter, "import_tensorflow", no_import)


@pytest.fixture(scope="session")
def weights():
    """The (784, 10) and (10,) of a linear network."""
    random = np.random.default_rng(0)
    return random.normal(size=(784, 10)).astype(np.float32) / 50, np.zeros(10, np.float32)


@pytest.fixture(scope="session")
def linear_export(weights, tmp_path_factory):
    """The export of a linear network, its ONNX and TFLite files written without a converter."""
    folder = tmp_path_factory.mktemp("exports") / "linear"
    folder.mkdir()
    write_onnx(folder / "linear.onnx", weights, INSIDE)
    write_tflite(folder / "linear.tflite", weights)
    return folder


@pytest.fixture(scope="session")
def node_modules(once):
    """The folder into which npm has installed onnxruntime-web; without Node.js or npm's registry
    a test is skipped.
    """

    def make(folder):
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed")
        command = [npm, "install", "--ignore-scripts", "--prefix", folder, static.PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            pytest.skip(f"npm cannot install {static.PACKAGE}: {done.stderr[-300:]}")

    return once("node", make) / "node_modules"


@pytest.fixture(scope="session")
def colour_export(tmp_path_factory):
    """An ONNX file for images in colour, of 20 classes, each with an odd name."""
    path = tmp_path_factory.mktemp("colours") / "colours.onnx"
    random = np.random.default_rng(1)
    matrix = random.normal(size=(math.prod(RGB), 20)).astype(np.float32) / 100
    names = [f"{HOSTILE} {index}" for index in range(20)]
    write_onnx(path, (matrix, np.zeros(20)), None, size=RGB, classes=names)
    return path, matrix, names
