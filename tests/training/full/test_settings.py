"""Settings that a start of training refuses, and --check alike."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_loader.dataloader import IdxImages
from model.modules import Layers, linear
from tests.helpers.tracking import json_lines
from training.engine.step import make_forward, moving_average


def in_float16(x, *, params=None, key=None, train=False):
    layer = Layers(params, key, train)
    factor = layer.array("factor", (), lambda key, shape: jnp.ones(shape, jnp.float16))
    return layer("head", linear, x.reshape(len(x), -1) * factor, 10), layer.params


class Halves(IdxImages):
    """Images in float16."""

    def __init__(self, root, split):
        super().__init__(root, split)
        self.images = self.images.astype(np.float16)


@pytest.mark.parametrize("check", [[], ["--check"]])
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (["training.compute_dtype=float16"], "expected bfloat16"),
        (["model.name=tests.training.full.test_settings:in_float16", "model.args={}"],
         "the network's parameters factor: float16"),
        (["training.checkpoint=/nowhere/at/all"], "/nowhere/at/all: there is no"),
        (["training.save_dir=/dev/null/runs"], "cannot write a run there"),
        (["training.trackers=[json]"], "no tracker 'json'"),
        (["devices.count=64"], "devices.count: expected at most"),
    ],
)  # fmt: skip
def test_check_refuses_what_a_start_refuses(run, changed, words, check, capsys):
    code, folder = run(*changed, *check)
    assert (code, folder) == (1, None)
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_check_tries_what_is_to_be_resumed_and_changes_nothing(run, capsys):
    _, folder = run("training.epochs=1")

    def times():  # of all but the log, which this process still has open
        files = (path for path in folder.rglob("*") if path.name != "train.log")
        return {path: path.stat().st_mtime_ns for path in files}

    before = times()
    assert run("--resume", str(folder), "--check")[0] == 0
    assert run("--resume", str(folder), "--check", "training.ema=.9")[0] == 1
    said = capsys.readouterr().err
    assert f"training.checkpoint={folder / 'checkpoint-epoch_1.params'}" in said
    assert run("--resume", str(folder / "no"), "--check")[0] == 1
    assert times() == before


def test_all_that_fits_begins_a_run_for_other_classes(run, capsys):
    _, folder = run("training.epochs=1")
    given = {"path": str(folder), "partial": True}
    assert run(f"training.checkpoint={json.dumps(given)}", "model.args.classes=12")[0] == 0
    assert "so trained from the start: head/bias, head/kernel" in capsys.readouterr().out
    given = {"path": str(folder), "rename": {"hidden0": "hidden"}}
    assert run(f"training.checkpoint={json.dumps(given)}")[0] == 1
    assert '"rename": {"hidden": "hidden0"}' in capsys.readouterr().err


def test_images_in_float16_train_as_in_float32(run, config):
    results = []
    for name in ("IdxImages", "tests.training.full.test_settings:Halves"):
        for split in ("train", "test"):
            config["data_loader"][split]["args"]["dataset"]["name"] = name
        code, folder = run("training.epochs=1")
        assert code == 0
        results.append(json_lines(folder / "metrics.jsonl")[-1])
        os.rename(folder, folder.with_name(folder.name + name.replace(":", "_")))
    np.testing.assert_allclose(*(list(one.values()) for one in results), rtol=1e-5)


def test_a_run_of_older_versions_in_float16_is_evaluated():
    def double(x, *, params, key, train):
        return {"dtype": x, "sum": x + x}, {}

    forward = make_forward(double, None, "float16")
    outputs, _ = forward({}, jnp.ones(2), None, False)
    assert outputs["sum"].dtype == jnp.float32


def test_the_moving_average_of_what_does_not_change_is_the_same_to_the_bit():
    class State:
        step = jnp.asarray(1000)
        ema_params = jax.random.normal(jax.random.key(0), (1000,))

    averaged = moving_average(State, State.ema_params, 0.9)
    assert averaged.tobytes() == State.ema_params.tobytes()
    other = State.ema_params + 1
    expected = np.asarray(State.ema_params, np.float64) + 0.1
    np.testing.assert_allclose(moving_average(State, other, 0.9), expected, rtol=1e-5)
