"""Fixtures that the tests of trackers share."""

import pytest


@pytest.fixture
def offline(config, monkeypatch, tmp_path):
    """A config with Weights & Biases, which writes to a folder of the test only."""
    for folder in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(folder, str(tmp_path / "wandb"))
    config["wandb"] = {"enabled": True, "mode": "offline", "project": "tests", "group": "a group"}
    return config
