"""LoRA: adapters that change nothing at first, are trained alone, and can be merged."""

import json

import jax
import numpy as np
import pytest

import train
from model.lora import lora, merge_lora
from model.model import vit
from tests.helpers.project import ROOT
from training.checkpoint.reading import read
from training.common.trees import fits, named_leaves

HYPER = {"patch": 7, "features": 8, "depth": 2, "heads": 2}
PATHS = ["block*/attention/query", "**/expand"]


@pytest.fixture(scope="module")
def images():
    """(4, 1, 28, 28) random images."""
    return np.random.default_rng(0).standard_normal((4, 1, 28, 28)).astype(np.float32)


def test_at_first_the_outputs_are_those_of_the_network_and_the_adapters_are_where_the_paths_say(
    images,
):
    outputs, params = lora(images, vit, PATHS, 2, hyper=HYPER, key=jax.random.key(0))
    added = {name: one.shape for name, one in named_leaves(params).items() if "lora" in name}
    assert added == {
        f"block{block}/{layer}/lora_{end}": shape
        for block in (0, 1)
        for layer, wide in (("attention/query", 8), ("expand", 32))
        for end, shape in (("down", (8, 2)), ("up", (2, wide)))
    }
    expected, _ = vit(images, **HYPER, params=merge_lora(params))
    for trains in (False, True):
        found, _ = lora(images, vit, PATHS, 2, hyper=HYPER, params=params, train=trains)
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(outputs, expected)


def test_merged_they_compute_the_same(images):
    _, params = lora(images, vit, PATHS, 2, hyper=HYPER, key=jax.random.key(0))
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda one: random.standard_normal(one.shape, np.float32) / 4, params)
    unmerged, _ = lora(images, vit, PATHS, 2, 0.5, HYPER, params=params, train=True)
    merged, same = lora(images, vit, PATHS, 2, 0.5, HYPER, params=params)
    alone, _ = vit(images, **HYPER, params=merge_lora(params, 0.5))
    limit = 1e-6 * np.abs(unmerged).max()
    assert np.abs(merged - unmerged).max() <= limit
    assert np.abs(alone - unmerged).max() <= limit
    plain, _ = vit(images, **HYPER, params=params)
    assert np.abs(plain - unmerged).max() > 1000 * limit
    assert jax.tree.all(jax.tree.map(np.array_equal, same, params))


def test_a_path_of_no_linear_layer_is_refused(images):
    with pytest.raises(ValueError, match="no linear layer has the path 'block0/norm'"):
        lora(images, vit, ["block0/norm"], hyper=HYPER, key=jax.random.key(0))


def test_a_group_trains_the_adapters_and_the_head_alone(mnist, tmp_path):
    config = json.loads((ROOT / "config.json").read_text())
    for split in ("train", "test"):
        args = config["data_loader"][split]["args"]
        args |= {"dataset": {"name": "IdxImages", "args": {"root": str(mnist), "split": split}}}
        args["batch_size"] = 128
    network = {"network": {"name": "vit"}, "hyper": HYPER, "paths": PATHS, "rank": 2}
    config["model"] = {"name": "model.lora:lora", "args": network}
    settings = config["training"]
    group = {key: settings.pop(key) for key in ("loss", "optimizer")}
    settings["optimizer_groups"] = {"network": group | {"params": ["**/lora_*", "head"]}}
    settings |= {"epochs": 2, "save_dir": str(tmp_path / "saved"), "save_every": "1 epoch"}
    folder = train.fit(config).folder
    first, second = (read(folder / f"checkpoint-epoch_{epoch}.params")[0] for epoch in (1, 2))
    changed = {name for name in first if not np.array_equal(first[name], second[name])}
    changed = {name.removeprefix("params/") for name in changed if name.startswith("params/")}
    names = [name.removeprefix("params/") for name in first if name.startswith("params/")]
    assert changed == {name for name in names if fits(name, ["**/lora_*", "head"], below=True)}
