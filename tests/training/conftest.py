"""Fixtures that the tests of training share."""

import pytest


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
