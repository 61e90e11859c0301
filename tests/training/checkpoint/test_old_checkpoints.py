"""Checkpoints and run folders of older versions are read, evaluated and resumed."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import test as evaluation
from tests.helpers.project import ROOT
from training.checkpoint.naming import file_name, latest
from training.checkpoint.reading import read
from training.checkpoint.restore import current_name, restore_state
from training.checkpoint.saver import Saver
from training.common.records import read_lines

OLD_RUN = ROOT / "tests" / "fixtures" / "old_run"


@pytest.fixture
def old_run(tmp_path, mnist, monkeypatch):
    """A copy of the old run, killed after its first epoch, where its data are found."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(mnist)
    run = shutil.copytree(OLD_RUN, tmp_path / "saved" / "old_run" / "2026")
    (run / file_name(2)).unlink()
    return run


def end_of_epoch(folder, epoch):
    """The last metrics of an epoch."""
    return [line for line in read_lines(folder / "metrics.jsonl") if line["epoch"] == epoch][-1]


def test_the_fixture_has_the_old_names():
    arrays, _ = read(OLD_RUN / file_name(1))
    assert "average/hidden0/kernel" in arrays
    config = json.loads((OLD_RUN / "config.json").read_text())
    assert config["training"]["rules"]["hidden"]["trains"] == ["hidden0"]
    assert config["data_loader"]["device_resident"] is False
    assert '"test_accuracy_spread"' in (OLD_RUN / "metrics.jsonl").read_text()


def test_an_old_checkpoint_is_evaluated_to_the_metrics_of_its_time(old_run, monkeypatch, capfd):
    assert evaluation.main(["-w", str(old_run / file_name(1)), "--trust"]) == 0
    printed = dict(
        line.rpartition(" - ")[2].split(" @ ")
        for line in capfd.readouterr().out.splitlines()
        if " @ " in line
    )
    expected = end_of_epoch(OLD_RUN, 1)
    for name in ("head_loss", "hidden_loss", "accuracy", "accuracy_std"):
        assert float(printed[name]) == pytest.approx(expected[f"test_{name}"], rel=1e-4), name


def test_an_old_run_resumes_with_its_own_config_and_network(old_run, script):
    with open(old_run / "model" / "model.py", "a") as file:
        file.write("print('the own network')\n")
    before = (old_run / "metrics.jsonl").read_text().splitlines()
    done = script(ROOT / "train.py", "--resume", old_run, "--trust", cwd=old_run.parents[2])
    assert done.returncode == 0, done.stderr
    assert "the own network" in done.stdout
    # Other processors than those of the fixture may round differently.
    expected = {
        current_name(name): array for name, array in read(OLD_RUN / file_name(2))[0].items()
    }
    arrays, meta = read(latest(old_run))
    assert meta["epochs"] == 2
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    lines = (old_run / "metrics.jsonl").read_text().splitlines()
    assert lines[:4] == before[:4]
    assert len(lines) == len(before)
    assert end_of_epoch(old_run, 2) == pytest.approx(end_of_epoch(OLD_RUN, 2), rel=1e-4)
    config = json.loads((old_run / "config.json").read_text())
    assert config["training"]["optimizer_groups"]["head"]["params"] == ["head"]


@pytest.mark.parametrize("orbax", [False, True])
def test_arrays_with_old_names_are_restored_from_either_format(tmp_path, orbax):
    params = {"stem": jnp.arange(6.0).reshape(2, 3)}
    with Saver(tmp_path, orbax=orbax) as saver:
        saver.save({"params": params, "average": {"stem": params["stem"] / 2}}, {}, file_name(1))
    path = latest(tmp_path)
    arrays, _ = read(path, for_devices=True)
    template = jax.eval_shape(lambda: {"params": params, "ema_params": params})
    state = restore_state(template, arrays, path, None)
    np.testing.assert_array_equal(state["params"]["stem"], params["stem"])
    np.testing.assert_array_equal(state["ema_params"]["stem"], params["stem"] / 2)
