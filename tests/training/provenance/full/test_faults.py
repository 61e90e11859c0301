"""What runs survive, to the bit: kills, interrupts, bad disks, another process; slow tests."""

import shutil
import subprocess
import sys

import pytest

from benchmarks import faults, faults_disks, faults_files
from tests.helpers.examples import gan_config
from tests.helpers.project import ROOT, by_set, same_arrays
from training.checkpoint.naming import best, latest, numbered
from training.checkpoint.reading import read
from training.common.locks import lock

NETWORKS = {
    "mnist_model": {"feat_dims": [4, 8]},
    "vit": {"patch": 7, "features": 16, "depth": 1, "heads": 2, "drop_rate": 0.1},
    "gan": None,
}


def test_runs_killed_at_random_and_in_mid_save_end_with_the_same_bits(tmp_path):
    counts = faults.kills(tmp_path, count=4, workers=1)
    assert counts["kills"] >= 4
    assert counts["of them during a save"] >= 1
    assert counts["checkpoints read, all complete"] >= 1


def test_a_run_interrupted_at_random_moments_ends_with_the_same_bits(tmp_path):
    assert faults.signals(tmp_path, count=2)["interrupts"] == 2


@pytest.fixture(scope="module")
def on_a_good_disk(tmp_path_factory):
    trial = faults.Trial(tmp_path_factory.mktemp("good"), faults_disks.EPOCHS, width=100)
    trial.finish()
    return trial.result()


@pytest.mark.parametrize(
    "disk",
    [faults_disks.limited, faults_disks.forbidden, faults_disks.moved_away, faults_disks.removed],
)
def test_a_bad_disk_costs_no_checkpoint_and_no_training(tmp_path, on_a_good_disk, disk):
    disk(faults.Trial(tmp_path, faults_disks.EPOCHS, width=100), on_a_good_disk)


def test_a_run_resumed_from_its_best_checkpoint_sets_the_newer_ones_aside(run, config):
    config["training"] |= {"epochs": 4, "keep": 2, "monitor": "max test_accuracy"}
    config["training"]["optimizer"]["args"]["learning_rate"] = 0.0  # the first stays the best
    _, folder = run()
    newer = {path.name: path.read_bytes() for path in numbered(folder)}
    code, again = run("--resume", str(folder / "checkpoint-best.params"), "training.epochs=2")
    assert (code, again) == (0, folder)
    (aside,) = folder.glob("set-aside-*")
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == newer
    assert latest(folder).name == "checkpoint-epoch_2.params"


def test_mutated_configs_are_valid_or_refused_in_words(tmp_path):
    assert faults_files.configs(tmp_path, 60)["mutated configs"] >= 60


@pytest.mark.parametrize("network", NETWORKS)
def test_a_config_gives_the_same_bits_twice_in_a_row_and_in_two_processes_at_once(
    network, config, write_config, mnist, tmp_path
):
    if network == "gan":
        config = gan_config(mnist, tmp_path / "saved")
    else:
        config["model"] = {"name": network, "args": NETWORKS[network]}
    config["training"] |= {"epochs": 1}
    file = write_config(config)

    def start(name):
        command = [sys.executable, "train.py", "-c", file, f"training.save_dir={tmp_path / name}"]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)

    assert start("first").wait(200) == 0
    pair = [start("second"), start("third")]
    assert [process.wait(200) for process in pair] == [0, 0]
    runs = [next((tmp_path / name).glob("*/*")) for name in ("first", "second", "third")]
    metrics = {(run / "metrics.jsonl").read_bytes() for run in runs}
    assert len(metrics) == 1
    weights = [read(latest(run))[0] for run in runs]
    assert all(same_arrays(weights[0], other) for other in weights[1:])


def test_a_second_process_cannot_train_a_run_that_is_being_trained(run, script, tmp_path):
    _, folder = run()
    lock(folder)  # as the first process does
    before = (folder / "config.json").read_bytes()
    done = script(ROOT / "train.py", "--resume", folder, "training.epochs=3")
    assert done.returncode == 1
    assert "another process is training this run" in done.stderr
    assert (folder / "config.json").read_bytes() == before
    lock(tmp_path)
    done = script(ROOT / "train.py", "--resume", folder, "training.epochs=3")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "ended",
    by_set(["in mid-copy"], ["after the config", "in the first epoch", "in mid-copy"]),
)
def test_a_run_killed_before_its_first_checkpoint_starts_again_in_its_folder(
    run, config, ended, monkeypatch
):
    _, whole = run()
    expected = (whole / "metrics.jsonl").read_bytes(), read(latest(whole))[0]
    for path in [*numbered(whole), best(whole), whole / "report.html"]:
        path.unlink()
    if ended == "after the config":
        for path in whole.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.name != "config.json" and path.unlink()
    if ended == "in mid-copy":
        (whole / "model").rename(whole / "model.0123abcd.tmp")
        (whole / "model.0123abcd.tmp" / "model.py").write_text("def half(")
        (whole / "config.json.0123abcd.tmp").write_text("{")
    code, folder = run("--resume", str(whole))
    assert (code, folder) == (0, whole)
    assert (whole / "metrics.jsonl").read_bytes() == expected[0]
    assert same_arrays(read(latest(whole))[0], expected[1])
    assert not list(whole.glob("*.tmp"))
