"""The example in examples/finetune: pre-trained on five digits, fine-tuned on the other five."""

import json

import numpy as np
import pytest

import train
from inference import convert_tflite
from tests.helpers.project import ROOT, same_arrays
from training.checkpoint.naming import find
from training.checkpoint.reading import read

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
