"""The commands that import weights, prove them, and write them again."""

import functools
import hashlib
import json

import numpy as np
import pytest
import safetensors.flax
import safetensors.numpy
from huggingface_hub import ModelCard

from tests.helpers.zoo import weight
from tests.model.full.test_zoo import FIXTURES, RECORDED, SMALL, network_of
from training.config import Named
from training.engine.pretrained import names_of
from training.weights import export_weights, import_weights


@functools.cache
def recorded(name):
    """Weights, inputs and outputs of a network in PyTorch; see tests/fixtures/zoo/make.py."""
    shapes = RECORDED["shapes"][name]
    _, x = network_of(name)
    outputs = np.load(FIXTURES / "outputs.npz")[name]
    return {key: weight(key, shape) for key, shape in shapes.items()}, x, outputs


@pytest.fixture
def command(write_config, config, tmp_path, monkeypatch):
    """Returns a function that imports a recorded network; it returns exit code and run folders."""
    monkeypatch.chdir(tmp_path)

    def command(name, *options, arrays=None, inputs=None, outputs=None, args=None, **checkpoint):
        known, x, wanted = recorded(name)
        function, hyper = SMALL[name]
        safetensors.numpy.save_file(known if arrays is None else arrays, "theirs.safetensors")
        x = x if inputs is None else inputs
        np.savez("io.npz", inputs=x, outputs=wanted if outputs is None else outputs)
        config["model"] = {"name": f"model.zoo.{function}", "args": hyper | (args or {})}
        config["training"]["save_dir"] = str(tmp_path / "saved")
        if checkpoint:
            config["training"]["checkpoint"] = {"path": "", **checkpoint}
        path = write_config(config)
        code = import_weights.main(["theirs.safetensors", "-c", str(path), *options])
        return code, sorted((tmp_path / "saved").glob("*/*"))

    return command


@pytest.mark.parametrize("name", ["resnet_basic", "gpt2"])
def test_a_network_is_imported_proven_and_exported_as_the_same_bits(name, command, capsys):
    code, (run,) = command(name, "--proof", "io.npz")
    assert code == 0, capsys.readouterr().err
    arrays, _, _ = recorded(name)
    report = json.loads((run / "import.json").read_text())
    assert 0 < report["outputs"]["outputs"]["error"] < 1e-5
    assert report["outputs"]["outputs"]["agreement"] == 1
    environment = json.loads((run / "environment.json").read_text())
    assert environment["weights"] == report["files"]
    assert len(report["files"]["theirs.safetensors"]) == 64
    assert export_weights.main([str(run), "--to", "torch", "--license", "mit"]) == 0
    written = safetensors.numpy.load_file(run / "torch" / "model.safetensors")
    assert written.keys() == arrays.keys()
    for key, array in arrays.items():
        assert np.array_equal(written[key], array), key
    card = ModelCard.load(run / "torch" / "README.md")
    assert card.data.license == "mit"


def test_a_network_that_computes_otherwise_is_no_checkpoint(command, capsys):
    _, _, outputs = recorded("resnet_basic")
    for wrong in (outputs * 1.001, outputs[:, :3], outputs * np.nan):
        code, folders = command("resnet_basic", "--proof", "io.npz", outputs=wrong)
        assert code == 1
        assert "outputs: beyond 0.0001" in capsys.readouterr().err
        folder = folders[-1]
        error = json.loads((folder / "import.json").read_text())["outputs"]["outputs"]["error"]
        assert error is None or error > 1e-4
        assert not [one for one in folder.iterdir() if one.suffix == ".params"]


def test_the_proof_may_be_of_pixels_with_the_preprocessing_of_the_source(command, config):
    _, x, _ = recorded("resnet_basic")
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    config["data_loader"]["preprocess"] = {"name": "normalize", "args": {"mean": mean, "std": std}}
    pixels = 255 * (x * np.reshape(std, (3, 1, 1)) + np.reshape(mean, (3, 1, 1)))
    options = {"inputs": pixels.astype(np.float32)}
    code, (run,) = command("resnet_basic", "--proof", "io.npz", "--preprocess", **options)
    assert code == 0
    kept = json.loads((run / "config.json").read_text())["data_loader"]["preprocess"]
    assert kept["args"] == {"mean": mean, "std": std}
    assert command("resnet_basic", "--proof", "io.npz", **options)[0] == 1


def test_half_precision_is_imported_within_its_error(command):
    arrays, _, _ = recorded("resnet_basic")
    half = {name: array.astype(np.float16) for name, array in arrays.items()}
    options = ("--proof", "io.npz", "--limit")
    assert command("resnet_basic", *options, "0.01", arrays=half)[0] == 0
    assert command("resnet_basic", *options, "1e-6", arrays=half)[0] == 1


def test_names_are_those_of_the_networks_that_a_network_calls():
    adapted = {"network": {"name": "model.zoo.gpt2:gpt2"}, "paths": ["h/*/attn/c_attn"]}
    lora = names_of(Named(name="model.lora:lora", args=adapted))
    assert lora["transformers (gpt2)"]["transformer"] == ""
    assert "torchvision (vit)" in names_of(Named(name="model.zoo.convnext:convnext"))  # its MLP
    assert names_of(Named(name="mlp")) == {}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_comes_back_as_the_same_bits(command, dtype):
    arrays, _, _ = recorded("gpt2")
    half = {name: array.astype(np.dtype(dtype)) for name, array in arrays.items()}
    code, (run,) = command("gpt2", "--proof", "io.npz", "--limit", "0.1", arrays=half)
    assert code == 0
    assert export_weights.main([str(run), "--to", "torch", "--dtype", dtype]) == 0
    written = safetensors.flax.load_file(run / "torch" / "model.safetensors")
    for name, array in half.items():
        assert written[name].dtype == dtype
        assert np.array_equal(written[name], array), name


def test_a_file_of_another_network_and_one_with_nan_are_refused_in_one_message(command, capsys):
    arrays, _, _ = recorded("resnet_basic")
    renamed = {name.replace("fc.", "classifier."): array for name, array in arrays.items()}
    nan = arrays | {"bn1.bias": arrays["bn1.bias"] + np.array([np.nan] + 63 * [0], np.float32)}
    for given, words in [
        (recorded("gpt2")[0], ["does not fit", "missing", "not expected"]),
        (nan, ["bn1.bias has numbers that are not finite, 1 of 64"]),
        (renamed, ['"rename": {"classifier": "fc"}']),
    ]:
        code, runs = command("resnet_basic", "--proof", "io.npz", arrays=given)
        error = capsys.readouterr().err
        assert (code, runs) == (1, [])
        assert all(word in error for word in words), error
    code, runs = command("resnet_basic", "--accept", "--proof", "io.npz", arrays=renamed)
    assert (code, len(runs)) == (0, 1), capsys.readouterr().err
    config = json.loads((runs[0] / "config.json").read_text())
    assert config["training"]["checkpoint"]["rename"] == {"classifier": "fc"}


def test_what_a_run_began_with_is_exported_under_its_own_names(run, config, tmp_path):
    random = np.random.default_rng(0)
    shapes = {"net.0.weight": (16, 784), "net.0.bias": (16,), "net.2.weight": (5, 16)}
    shapes["net.2.bias"] = (5,)
    file = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    path = tmp_path / "theirs.safetensors"
    safetensors.numpy.save_file(file, path)
    names = {"net.0": "hidden0", "net.2": "head"}
    checkpoint = {"path": str(path), "rename": names, "except": ["head"]}
    config["training"] |= {"checkpoint": checkpoint, "freeze": ["hidden0"], "epochs": 1}
    code, first = run()
    assert code == 0
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    environment = json.loads((first / "environment.json").read_text())
    assert environment["weights"] == {"theirs.safetensors": digest}
    config["training"]["checkpoint"] = str(first)
    code, second = run()
    assert code == 0
    for folder in (first, second):
        assert export_weights.main([str(folder), "--to", "torch"]) == 0
        written = safetensors.numpy.load_file(folder / "torch" / "model.safetensors")
        assert {name: array.shape for name, array in written.items()} == shapes | {
            "net.2.weight": (10, 16), "net.2.bias": (10,)
        }  # fmt: skip
        assert np.array_equal(written["net.0.weight"], file["net.0.weight"])
    card = ModelCard.load(second / "torch" / "README.md")
    assert {one.metric_type for one in card.data.eval_results} >= {"accuracy", "loss"}
