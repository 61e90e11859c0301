"""Fixtures that the tests of the engine share."""

import pytest

from training.config import read_config
from training.engine.build import build


@pytest.fixture
def trusty(config, mnist):
    """A config with statistics, dropout, a moving average and examples held out."""
    config["model"] = {"name": "tests.helpers.networks:network"}
    dataset = {
        "name": "tests.helpers.networks:Signalling",
        "args": {"root": str(mnist), "split": "train"},
    }
    config["data_loader"]["train"]["args"] |= {"dataset": dataset, "validation_split": 0.1}
    config["data_loader"]["augment"] = None
    config["training"] |= {"ema": 0.9, "epochs": 2, "metrics": ["accuracy", "macro_f1"]}
    return config


@pytest.fixture
def points(config):
    """A config of points, in batches of 8: 5 of training and of test, the last 4 are held out."""

    def loader(split, **args):
        dataset = {"name": "tests.helpers.faulty:Points", "args": {"split": split}}
        return {"name": "DataLoader", "args": {"dataset": dataset, "batch_size": 8, **args}}

    config["model"] = {"name": "mlp", "args": {"feat_dims": [8], "classes": 3}}
    config["data_loader"] = {"train": loader("train", validation_split=4), "test": loader("test")}
    config["training"] |= {
        "optimizer": {"name": "sgd", "args": {"learning_rate": 0.01}},
        "epochs": 3, "log_every": "2 steps", "monitor": "min validation_loss",
    }  # fmt: skip
    return config


@pytest.fixture
def build_with(config, write_config):
    """Returns the Experiment of the sample with these transforms."""

    def made(augment, **training):
        config["data_loader"]["augment"] = augment
        config["training"] |= training
        return build(read_config(write_config(config)))

    return made
