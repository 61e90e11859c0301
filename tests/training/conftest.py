"""Fixtures that the tests of training share."""

import pytest

import train
from tests.helpers import labelled
from tests.helpers.project import ROOT


@pytest.fixture
def trusty(config, mnist):
    """A config with everything that resuming has to bring back."""
    config["model"] = {"name": "tests.helpers.networks:network"}
    dataset = {
        "name": "tests.helpers.networks:Signalling",
        "args": {"root": str(mnist), "split": "train"},
    }
    config["data_loader"]["train"]["args"] |= {"dataset": dataset, "validation_split": 0.1}
    config["training"] |= {"ema": 0.9, "epochs": 3, "metrics": ["accuracy", "macro_f1"]}
    return config


@pytest.fixture
def fit_labelled(tmp_path, monkeypatch):
    """Trains on a data set of tests/helpers/labelled.py; returns the Run."""
    monkeypatch.chdir(ROOT)

    def fit(dataset="Points", collate=None, overrides=(), **args):
        config = labelled.small_config(tmp_path, dataset, collate, **args)
        return train.fit(config, overrides=overrides)

    return fit
