"""Tests for any data and any network: change what you like, and keep these passing."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import train
from training.config import read_config
from training.engine.build import build
from training.engine.initialize import first_batch

CONFIG = str(Path(__file__).parents[1] / "config.json")
EPOCHS = 2  # enough for the loss to fall


@pytest.fixture(scope="module")
def experiment():
    return build(read_config(CONFIG))


@pytest.fixture
def finished_run(tmp_path):
    arguments = ["-c", CONFIG, f"training.epochs={EPOCHS}", f"training.save_dir={tmp_path}"]
    assert train.main(arguments) == 0
    return next(tmp_path.glob("*/*"))


def test_the_loss_falls_and_a_run_can_be_resumed(finished_run):
    assert train.main(["--resume", str(finished_run), f"training.epochs={EPOCHS + 1}"]) == 0
    lines = map(json.loads, (finished_run / "metrics.jsonl").read_text().splitlines())
    losses = [line["epoch_train_loss"] for line in lines if "epoch_train_loss" in line]
    assert len(losses) == EPOCHS + 1
    assert losses[-1] < losses[0]


def test_the_params_that_the_network_returns_are_those_for_its_next_call(experiment):
    inputs = first_batch(experiment)["inputs"]
    first, params = experiment.forward(None, inputs, jax.random.key(0), False)
    second, _ = experiment.forward(params, inputs, None, False)
    jax.tree.map(lambda *pair: np.testing.assert_allclose(*pair, rtol=1e-5), first, second)


def test_training_and_test_data_have_the_same_shape(experiment):
    first, second = (
        next(experiment.loaders[split].batches(epoch=1)) for split in ("train", "test")
    )
    assert jax.tree.map(lambda leaf: leaf.shape[1:], first["inputs"]) == jax.tree.map(
        lambda leaf: leaf.shape[1:], second["inputs"]
    )
