"""Imported, fine-tuned and exported: the files against the network, normalised by NumPy."""

import functools
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

import train
from inference import convert_tflite
from inference.verify.runtimes import load
from model.lora import merge_lora
from model.zoo.vit import vit
from tests.helpers.zoo import weight
from tests.model.full.test_zoo import RECORDED, VIT
from training.config import Named, Pretrained
from training.engine.pretrained import fill, read_weights
from training.weights import export_weights

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
LORA = {"network": {"name": "model.zoo.vit:vit"}, "hyper": VIT, "rank": 2, "scale": 0.5}
NETWORKS = {
    "all": ({"name": "model.zoo.vit:vit", "args": VIT}, {}),
    "lora": (
        {"name": "model.lora:lora", "args": LORA | {"paths": ["blocks/*/attn/qkv"]}},
        {"except": ["**/lora_*"]},
    ),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_files_compute_what_the_network_does_with_the_normalisation_of_its_source(kind, tmp_path):
    arrays = {key: weight(key, shape) for key, shape in RECORDED["shapes"]["vit"].items()}
    safetensors.numpy.save_file(arrays, tmp_path / "theirs.safetensors")
    model, more = NETWORKS[kind]
    dataset = {"name": "tests.helpers.zoo:RandomPixels", "args": {}}
    loader = {"name": "DataLoader", "args": {"dataset": dataset, "batch_size": 8}}
    (tmp_path / "config.json").write_text(json.dumps({
        "title": "Imported",
        "model": model,
        "data_loader": {
            "train": loader, "test": loader,
            "preprocess": {"name": "normalize", "args": {"mean": MEAN, "std": STD}},
        },
        "training": {
            "loss": "cross_entropy", "epochs": 2, "report": [], "save_dir": str(tmp_path / "saved"),
            "optimizer": {"name": "adamw", "args": {"learning_rate": 0.01}},
            "checkpoint": {"path": str(tmp_path / "theirs.safetensors"), **more},
        },
    }))  # fmt: skip
    run = train.fit(str(tmp_path / "config.json"))
    arguments = ["--name", "net", "-w", str(run.folder), "--into", str(tmp_path)]
    assert convert_tflite.main(arguments) == 0

    pixels = np.random.default_rng(1).integers(0, 256, (5, 3, 32, 32), np.uint8)
    x = (pixels / np.float32(255) - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    network = jax.jit(lambda params: vit(np.float32(x), **VIT, params=params)[0])
    trained = jax.tree.map(np.asarray, run.state.params)
    expected = network(merge_lora(trained, 0.5))
    for suffix in (".tflite", ".onnx"):
        (outputs,) = load(tmp_path / "net" / f"net{suffix}").run({"input": pixels}).values()
        assert np.abs(outputs - expected).max() <= 1e-4 * np.abs(expected).max()

    assert export_weights.main([str(run.folder), "--to", "torch"]) == 0
    path = run.folder / "torch" / "model.safetensors"
    assert safetensors.numpy.load_file(path).keys() == arrays.keys()
    _, template = jax.eval_shape(functools.partial(vit, **VIT, key=jax.random.key(0)), x)
    found = read_weights(Named(name="model.zoo.vit:vit"), Pretrained(path=str(path)), template)
    written = network(fill(template, found))
    assert np.abs(written - expected).max() <= 1e-5 * np.abs(expected).max()
    before = read_weights(
        Named(name="model.zoo.vit:vit"),
        Pretrained(path=str(tmp_path / "theirs.safetensors")), template,
    )  # fmt: skip
    assert np.abs(network(fill(template, before)) - expected).max() > 0.01 * np.abs(expected).max()
