"""The example in examples/finetune: pre-trained on five digits, fine-tuned on the other five."""

import functools
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import train
from examples.finetune.digits import SomeDigits
from inference import convert_tflite
from model.zoo.efficientnet import efficientnet_lite0
from tests.helpers.project import ROOT, same_arrays
from training.checkpoint.naming import find
from training.checkpoint.reading import read
from training.config import read_config
from training.engine.pretrained import read_weights

FOLDER = ROOT / "examples" / "finetune"


def example(name, save_dir, each, epochs):
    """A config of the example with fewer examples of each digit."""
    values = json.loads((FOLDER / name).read_text())
    values["data_loader"]["train"]["args"]["dataset"]["args"]["each"] = each
    values["model"]["args"]["features"] = [8, 16, 32]
    values["training"] |= {"save_dir": str(save_dir), "epochs": epochs, "save_every": "1 epoch"}
    return values


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The folder of the run on the digits 0 to 4."""
    folder = tmp_path_factory.mktemp("pretrained")
    return train.fit(example("pretrain.json", folder, 40, 2)).folder


@pytest.fixture(scope="module")
def finetuned(pretrained, tmp_path_factory):
    """The run on the digits 5 to 9, and its config."""
    values = example("config.json", tmp_path_factory.mktemp("finetuned"), 10, 6)
    values["training"]["checkpoint"]["path"] = str(pretrained)
    return train.fit(values), values


def test_the_stem_is_that_of_the_digits_before_and_the_rest_is_not(pretrained, finetuned):
    before, after = (read(find(one))[0] for one in (pretrained, finetuned[0].folder))
    for name, array in after.items():
        if name.startswith("params/"):
            same = np.array_equal(array, before[name])
            assert same == name.startswith("params/stem/"), name
    assert not [name for name in after if name.startswith("optimizers/") and "stem/" in name]


def test_a_run_resumed_ends_with_the_same_bits(finetuned):
    folder = finetuned[0].folder
    last = read(find(folder))[0]
    (numbered,) = folder.glob("checkpoint-epoch_3.params")
    train.fit(resume=str(numbered))
    assert same_arrays(read(find(folder))[0], last)


def test_the_network_is_exported_with_the_digits_names(finetuned, tmp_path):
    arguments = ["--name", "digits", "-w", str(finetuned[0].folder), "--into", str(tmp_path)]
    assert convert_tflite.main(arguments) == 0
    report = json.loads((tmp_path / "digits" / "report.json").read_text())
    assert report["metadata"]["classes"] == ["5", "6", "7", "8", "9"]


def test_weights_of_imagenet_are_taken_but_for_the_classifier(tmp_path):
    shapes = json.loads((ROOT / "tests/fixtures/zoo/names.json").read_text())["shapes"]
    shapes = shapes["efficientnet_pytorch.efficientnet_lite0"]
    arrays = {key: np.full(shape, 0.5, np.float32) for key, shape in shapes.items()}
    save_file(arrays, tmp_path / "lite0.safetensors")
    config = read_config(FOLDER / "imagenet.json")
    args = config.data_loader.train.args["dataset"]["args"] | {"root": str(ROOT / "data")}
    image, label = SomeDigits(**args)[0]
    plain, same = SomeDigits(**args | {"scale": None})[0]
    assert image.shape == (3, 56, 56)
    assert label == same
    np.testing.assert_array_equal(image[:, 1::2, ::2], np.broadcast_to(plain, (3, 28, 28)))

    network = functools.partial(efficientnet_lite0, **config.model.args)
    _, params = jax.eval_shape(lambda x: network(x, key=jax.random.key(0)), image[None])
    wanted = config.training.checkpoint.model_copy(
        update={"path": str(tmp_path / "lite0.safetensors")}
    )
    weights = read_weights(config.model, wanted, params)
    assert set(weights.left) == {"classifier/bias", "classifier/kernel"}
    np.testing.assert_array_equal(weights.arrays["blocks/1/0/bn2/scale"], 0.5)
