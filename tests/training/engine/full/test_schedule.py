"""Runs that evaluate, save and call callbacks within epochs, resumed from every place."""

import shutil
import signal
import subprocess
import sys
import time

import pytest

import train
from tests.helpers.hooks import assert_same_run
from tests.helpers.project import ROOT
from training.checkpoint.naming import numbered

OFTEN = {
    "evaluate_every": "3 steps", "save_every": "2 steps", "keep": 50, "monitor": "min test_loss",
    "callbacks": [
        {"name": "tests.helpers.hooks:weigh", "every": "5 steps"},
        {"name": "tests.helpers.hooks:weigh", "args": {"called": "ends"}},
    ],
}  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"steps_per_call": 3}, {"accumulate": 2}, {"seeds": 2}])
def test_from_each_checkpoint_on_a_run_repeats_its_bits_and_lines(run, points, tmp_path, more):
    points["training"] |= OFTEN | {"ema": 0.9} | more
    code, whole = run()
    assert code == 0
    names = [path.name for path in numbered(whole)]
    assert len(names) == 8  # 2, 4, ..., 14, and the last
    for name in names:
        copied = tmp_path / "copies" / name
        shutil.copytree(whole, copied)
        for path in numbered(copied)[names.index(name) + 1 :]:
            path.unlink()
        assert train.fit(resume=str(copied / name)).progress.steps == 15
        assert_same_run(copied, whole)


@pytest.mark.parametrize("number", range(1, 17, 3))
def test_a_signal_within_an_interval_changes_no_bit(run, trusty, monkeypatch, number):
    trusty["training"] |= OFTEN | {"steps_per_call": 2}
    _, whole = run()
    monkeypatch.setenv("SIGNAL_AT", f"SIGINT@{number}")
    code, parts = run()
    monkeypatch.delenv("SIGNAL_AT")
    assert code == 130
    assert run("--resume", str(parts)) == (0, parts)
    assert_same_run(parts, whole)


def test_a_run_killed_within_an_epoch_changes_no_bit(run, points, write_config, tmp_path):
    points["training"] |= OFTEN | {"epochs": 60, "keep": 3}
    _, whole = run()
    assert len(numbered(whole)) == 3
    points["training"]["save_dir"] = str(tmp_path / "killed")
    command = [sys.executable, "train.py", "-c", write_config(points)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while not list((tmp_path / "killed").glob("*/*/checkpoint-epoch_*-batch_*.params")):
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    (folder,) = (tmp_path / "killed").glob("*/*")
    assert run("--resume", str(folder)) == (0, folder)
    assert_same_run(folder, whole)


def test_sharded_folders_within_an_epoch_are_resumed(run, points):
    pytest.importorskip("orbax.checkpoint")
    code, whole = run("training.save_every=2 steps", "devices.orbax=true", "training.keep=9")
    middle = whole / "checkpoint-epoch_2-batch_1.params"
    before = (whole / "metrics.jsonl").read_bytes()
    assert code == 0
    assert run("--resume", str(middle))[0] == 0
    assert (whole / "metrics.jsonl").read_bytes() == before
