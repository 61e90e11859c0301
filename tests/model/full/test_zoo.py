"""The networks of model/zoo, against their original implementations: tests/fixtures/zoo/make.py."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import train
from inference import convert_tflite
from tests.helpers.project import ROOT
from tests.helpers.zoo import FULL, inputs, weight
from training.common.trees import named_leaves, subtree
from training.config import Named, Pretrained
from training.engine.pretrained import fill, names_of, read_weights
from training.weights.mapping import choose_source, map_arrays
from utils import resolve

FIXTURES = ROOT / "tests" / "fixtures" / "zoo"
RECORDED = json.loads((FIXTURES / "names.json").read_text(encoding="utf-8"))
MOBILE = {"stages": [[1, 3, 1, 1, 8], [2, 3, 2, 6, 8]], "stem": 8, "head": 24, "classes": 7}
LITE = MOBILE | {"squeeze": 0, "activation": jax.nn.relu6}
VIT = {"patch": 8, "features": 16, "depth": 2, "heads": 4, "classes": 7}
TEXT = {"vocabulary": 50, "positions": 16, "features": 16, "depth": 2, "heads": 4}
SMALL = {  # {name: (function, arguments)} of the networks that make.py records
    "resnet_basic": ("resnet:resnet", {"depths": [1, 2, 1, 1], "classes": 7}),
    "resnet_bottleneck": (
        "resnet:resnet", {"depths": [1, 1, 1, 1], "bottleneck": True, "classes": 7}
    ),
    "mobilenet_v2": ("efficientnet:efficientnet", LITE),
    "efficientnet_b0": (
        "efficientnet:efficientnet",
        MOBILE | {"stages": [[1, 3, 1, 1, 8], [2, 5, 2, 6, 8]]},
    ),
    "efficientnet_lite0": ("efficientnet:efficientnet", LITE | {"tensorflow": True}),
    "convnext": (
        "convnext:convnext", {"depths": [1, 1, 2, 1], "features": [8, 8, 16, 16], "classes": 7}
    ),
    "vit": ("vit:vit", VIT),
    "vit_gap": ("vit:vit", VIT | {"token": False}),
    "vit_torchvision": ("vit:vit", VIT),
    "vit_transformers": ("vit:vit", VIT),
    "gpt2": ("gpt2:gpt2", TEXT),
    "bert": ("bert:bert", TEXT | {"classes": 7}),
}  # fmt: skip


def network_of(name):
    """A small network of the zoo, and its inputs."""
    function, hyper = SMALL[name]
    network = functools.partial(resolve(f"model.zoo.{function}", [], "test"), **hyper)
    if name in ("gpt2", "bert"):
        return network, inputs((2, 9), 50)
    return network, inputs((2, 3, 31 if name == "efficientnet_lite0" else 32, 32))


@pytest.mark.parametrize("name", SMALL)
def test_a_network_is_equal_to_the_original_with_the_same_weights(name, tmp_path):
    network, x = network_of(name)
    arrays = {key: weight(key, shape) for key, shape in RECORDED["shapes"][name].items()}
    save_file(arrays, tmp_path / "original.safetensors")
    _, template = jax.eval_shape(lambda x: network(x, key=jax.random.key(0)), x)
    model = Named(name=f"model.zoo.{SMALL[name][0]}")
    wanted = Pretrained(path=str(tmp_path / "original.safetensors"))
    params = fill(template, read_weights(model, wanted, template))
    outputs, _ = jax.jit(lambda x: network(x, params=params))(x)
    expected = np.load(FIXTURES / "outputs.npz")[name]
    assert np.abs(outputs - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_blocks_of_efficientnet_pytorch_which_are_in_one_row_find_their_stages(tmp_path):
    shapes = RECORDED["shapes"]["efficientnet_pytorch.efficientnet_lite0"]
    arrays = {key: weight(key, shape) for key, shape in shapes.items()}
    path = tmp_path / "lite.safetensors"
    save_file(arrays, path)
    network = resolve("model.zoo.efficientnet:efficientnet_lite0", [], "test")
    x = jax.ShapeDtypeStruct((1, 3, 64, 64), jnp.float32)
    _, template = jax.eval_shape(lambda x: network(x, key=jax.random.key(0)), x)
    model = Named(name="model.zoo.efficientnet:efficientnet_lite0")
    params = named_leaves(fill(template, read_weights(model, Pretrained(path=str(path)), template)))
    assert len(params) == len(arrays)
    for ours, theirs in (
        ("blocks/0/0/conv_pw/kernel", "_blocks.0._project_conv.weight"),
        ("blocks/5/3/conv_dw/kernel", "_blocks.14._depthwise_conv.weight"),
        ("blocks/6/0/bn3/stats/mean", "_blocks.15._bn2.running_mean"),
    ):
        wanted = arrays[theirs]
        wanted = wanted.transpose(2, 3, 1, 0) if wanted.ndim == 4 else wanted
        np.testing.assert_array_equal(params[ours], wanted, err_msg=ours)


HEADS = {"resnet_basic": "fc", "mobilenet_v2": "classifier", "convnext": "head/fc", "vit": "head"}


@pytest.mark.parametrize("name", HEADS)
def test_without_classes_a_network_returns_what_its_last_layer_gets(name):
    network, x = network_of(name)
    logits, params = network(x, key=jax.random.key(0))
    features, rest = network(x, classes=None, params=params)
    head = subtree(params, HEADS[name], "test")
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"], logits, atol=1e-5)
    arrays = {key: np.broadcast_to(np.float32(0), shape)
              for key, shape in RECORDED["shapes"][name].items()}  # fmt: skip
    names = names_of(Named(name=f"model.zoo.{SMALL[name][0]}"))
    template = named_leaves(rest)
    _, chosen = choose_source(arrays, template, names, {}, "f")
    _, rows = map_arrays(arrays, template, chosen, "f")
    assert len([row for row in rows if row.problem == "not needed"]) == 2
    assert {row.problem for row in rows} == {"", "not needed"}


@pytest.mark.parametrize("top", ["", "module.backbone."])
@pytest.mark.parametrize("name", [name for name in RECORDED["shapes"] if "." in name])
def test_names_of_other_libraries_find_a_place_for_every_array(name, top):
    function, _ = FULL[name.partition(".")[2]]
    network = resolve(f"model.zoo.{function}", [], "test")
    x = jax.ShapeDtypeStruct((1, 3, 64, 64), jnp.float32)
    _, template = jax.eval_shape(lambda x: network(x, key=jax.random.key(0)), x)
    template = named_leaves(template)
    arrays = {
        top + key: np.broadcast_to(np.float32(0), shape)
        for key, shape in RECORDED["shapes"][name].items()
    }
    names = names_of(Named(name=f"model.zoo.{function}"))
    words, chosen = choose_source(arrays, template, names, {}, "f")
    assert name.partition(".")[0] in words
    _, rows = map_arrays(arrays, template, chosen, "f")
    assert {row.problem for row in rows} == {""}
    assert len(rows) == len(arrays) == len(template)


@pytest.mark.parametrize("name", FULL)
def test_a_network_of_full_size_has_as_many_parameters_as_the_original(name):
    function, hyper = FULL[name]
    network = functools.partial(resolve(f"model.zoo.{function}", [], "test"), **hyper)
    shape, dtype = (
        ((1, 3, 224, 224), jnp.float32) if name not in ("gpt2", "bert") else ((1, 8), int)
    )
    x = jax.ShapeDtypeStruct(shape, dtype)
    _, params = jax.eval_shape(lambda x: network(x, key=jax.random.key(0)), x)
    sizes = {key: one.size for key, one in named_leaves(params).items() if "stats" not in key}
    assert sum(sizes.values()) == RECORDED["parameters"][name]


TRAINED = {  # of each file one network, tiny: its training and its export take seconds
    "resnet_bottleneck": {"width": 4, "depths": [1, 1]}, "efficientnet_b0": {}, "vit": {},
    "convnext": {"depths": [1, 1], "features": [8, 16]}, "gpt2": {}, "bert": {},
}  # fmt: skip


@pytest.mark.parametrize("name", TRAINED)
def test_a_network_is_trained_and_exported(name, tmp_path):
    function, hyper = SMALL[name]
    text = name in ("gpt2", "bert")
    example = {"shape": [9], "vocabulary": 50} if text else {"shape": [3, 32, 32]}
    example["classes"] = None if name == "gpt2" else 7
    dataset = {"name": "tests.helpers.zoo:RandomExamples", "args": example}
    loader = {"name": "DataLoader", "args": {"dataset": dataset, "batch_size": 8}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({
        "title": "Zoo",
        "model": {"name": f"model.zoo.{function}", "args": hyper | TRAINED[name]},
        "data_loader": {"train": loader, "test": loader},
        "training": {
            "loss": "cross_entropy", "metrics": ["accuracy"], "epochs": 2,
            "optimizer": {"name": "adamw", "args": {"learning_rate": 0.01}},
            "save_dir": str(tmp_path / "saved"), "report": [],
        },
    }))  # fmt: skip
    run = train.fit(str(path))
    lines = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    losses = [line["train_loss"] for line in lines if "train_loss" in line]
    assert losses[-1] < losses[0]
    arguments = ["--name", "net", "-w", str(run.folder), "--into", str(tmp_path)]
    assert convert_tflite.main(arguments) == 0
