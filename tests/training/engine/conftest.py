"""Fixtures that the tests of the engine share."""

import pytest


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
