"""Runs with frozen parts: resumed, on several devices, with several seeds, and thawed."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.project import same_arrays
from training.checkpoint.naming import find
from training.checkpoint.reading import read

FROZEN = {"freeze": ["hidden", "norm"], "learning_rates": {"out.bias": 2}}


@pytest.fixture
def frozen(trusty):
    trusty["training"] |= FROZEN
    return trusty


def arrays_of(folder, epoch=None):
    return read(folder / f"checkpoint-epoch_{epoch}.params" if epoch else find(folder))[0]


@pytest.mark.parametrize(
    "options",
    [(), ("training.accumulate=2",), ("training.seeds=2",), ("training.steps_per_call=3",)],
)
def test_a_run_stopped_and_resumed_ends_with_the_same_bits(frozen, run, monkeypatch, options):
    code, whole = run(*options)
    assert code == 0
    monkeypatch.setenv("SIGNAL_AT", "SIGTERM@11")
    code, folder = run(*options)
    assert code != 0
    monkeypatch.delenv("SIGNAL_AT")
    assert run("--resume", str(folder))[0] == 0
    assert same_arrays(arrays_of(whole), arrays_of(folder))
    first, last = arrays_of(whole, 1), arrays_of(whole)
    for name in first:
        if name.startswith(("params/hidden", "params/norm")):
            assert np.array_equal(first[name], last[name]), name


def test_parts_stay_frozen_where_devices_share_the_state(frozen, write_config, script):
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    frozen["data_loader"]["train"]["args"]["batch_size"] = 64
    command = ["train.py", "-c", write_config(frozen), "devices.shards=2"]
    assert script(*command, env=environment).returncode == 0
    (folder,) = Path(frozen["training"]["save_dir"]).glob("*/*")
    first, last = arrays_of(folder, 1), arrays_of(folder)
    for name in first:
        if name.startswith("params/"):
            stays = not name.startswith("params/out")
            assert np.array_equal(first[name], last[name]) == stays, name


def test_a_run_resumed_with_another_freeze_trains_what_it_says(frozen, run):
    code, folder = run("training.epochs=1")
    assert code == 0
    before = arrays_of(folder)
    options = ("training.epochs=2", 'training.freeze=["out"]', "training.learning_rates={}")
    assert run("--resume", str(folder), *options)[0] == 0
    log = (folder / "train.log").read_text()
    assert "Frozen from here on: out" in log
    assert "the state of the optimizer starts again (ema_params/hidden/bias" in log
    after = arrays_of(folder)
    for name, array in after.items():
        if name.startswith("params/"):
            assert np.array_equal(array, before[name]) == name.startswith("params/out"), name
    assert not [name for name in after if name.startswith(("opt", "ema_")) and "out/" in name]
    assert [name for name in after if name.startswith("ema_params/hidden")]
    # and from the older checkpoint once more, as the config has changed in the meantime
    assert run("--resume", str(folder / "checkpoint-epoch_1.params"))[0] == 0
    assert same_arrays(arrays_of(folder), after)
