"""Fixtures that the tests of trackers share."""

import pytest

from training.config import read_config
from training.tracking.trackers import Trackers


@pytest.fixture
def offline(config, monkeypatch, tmp_path):
    """A config with Weights & Biases, which writes to a folder of the test only."""
    for folder in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(folder, str(tmp_path / "wandb"))
    config["wandb"] = {"enabled": True, "mode": "offline", "project": "tests", "group": "a group"}
    return config


@pytest.fixture
def start(config, write_config, tmp_path):
    """Starts the trackers of a config alone, in an empty folder."""

    def start(*named, sizes=None, step=0):
        config["training"]["trackers"] = list(named)
        (tmp_path / "run").mkdir(exist_ok=True)
        return Trackers(read_config(write_config(config)), tmp_path / "run", sizes or {}, step)

    return start
