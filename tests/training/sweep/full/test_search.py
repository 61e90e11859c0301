"""Searches by the real Optuna, over runs that train."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.project import ROOT
from training.checkpoint.naming import file_name, latest
from training.common.records import read_lines
from training.sweep import __main__ as sweep

optuna = pytest.importorskip("optuna")
RATE = "training.optimizer.args.learning_rate"
TIMEOUT = 120  # seconds


def trials_of(folder):
    """What Optuna's own reader has in the sweep's folder."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "search.journal"))
    return optuna.load_study(
        study_name="sweep", storage=optuna.storages.JournalStorage(backend)
    ).trials


@pytest.fixture
def words(config, write_config):
    """The command line of a search of the learning rate, by the mean over two folds."""
    config["training"] |= {"monitor": "min validation_loss"}
    config["data_loader"]["train"]["args"] |= {"fold": "$fold", "folds": 2}
    return ["-c", write_config(config), f"{RATE}=log(0.0001,0.1)", "fold=[0,1]",
            "--mean-over", "fold", "--sampler", "tpe"]  # fmt: skip


def folder_of(config):
    return Path(config["training"]["save_dir"], "MNIST_Sample-sweep", "fold-learning_rate")


def test_a_trial_is_the_mean_over_its_folds_and_a_search_goes_on_with_more(words, config, capsys):
    words = [*words, "training.epochs=1"]
    assert sweep.main([*words, "--trials", "2"]) == 0
    folder = folder_of(config)
    assert len(trials_of(folder)) == 2
    before = {run: latest(run).stat().st_mtime_ns for run in folder.glob("fold=*")}
    assert len(before) == 4
    assert sweep.main([*words, "--trials", "3"]) == 0
    assert {run: latest(run).stat().st_mtime_ns for run in before} == before
    done = trials_of(folder)
    assert [one.state.name for one in done] == ["COMPLETE"] * 3
    for one in done:
        rate = f"{one.params[RATE]:.4g}"
        runs = [run for run in folder.glob("fold=*") if float(rate) == rate_of(run)]
        losses = [read_lines(run / "metrics.jsonl")[-1]["validation_loss"] for run in runs]
        assert len(losses) == 2
        assert one.value == pytest.approx(sum(losses) / 2)
    settings = json.loads((folder / "sweep.json").read_text())["settings"]
    assert settings[0]["mean"] == pytest.approx(min(one.value for one in done))
    assert [one["seeds"] for one in settings] == ["2"] * 3
    capsys.readouterr()


def rate_of(run):
    text = (run / "config.json").read_text()
    return json.loads(text)["training"]["optimizer"]["args"]["learning_rate"]


@pytest.fixture
def sweeper(words):
    """Starts the search as its own process."""

    def start(*more):
        command = [sys.executable, "-m", "training.sweep", *words, *more]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)

    return start


def test_a_killed_search_continues_and_trains_no_finished_run_again(sweeper, config):
    words = ("--trials", "2", "training.epochs=30", "training.keep=100")
    folder, process = folder_of(config), sweeper(*words)
    deadline = time.monotonic() + TIMEOUT
    while len(list(folder.glob("fold=1*/checkpoint-epoch_2.params"))) < 1:  # the second run
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    os.kill(int(child), signal.SIGKILL)
    process.communicate()
    with open(folder / "search.journal", "ab") as file:
        file.write(b'{"op_code": 4, "wor')  # cut short
    (finished,) = folder.glob("fold=0*")
    before = latest(finished).stat().st_mtime_ns

    output, errors = (process := sweeper(*words)).communicate(timeout=2 * TIMEOUT)
    assert process.returncode == 0, output + errors
    assert latest(finished).stat().st_mtime_ns == before
    assert len(list(folder.glob("fold=*"))) == 4  # of 2 trials
    assert len([one for one in trials_of(folder) if one.state.name == "COMPLETE"]) == 2
    for run in folder.glob("fold=*"):
        epochs = [
            line["epoch"] for line in read_lines(run / "metrics.jsonl") if "batch" not in line
        ]
        assert epochs == list(range(1, 31))


def test_a_bad_trial_is_pruned_named_and_below_the_complete_ones(config, write_config, capsys):
    config["training"] |= {"monitor": "min test_loss", "epochs": 60, "keep": 1}
    words = ["-c", write_config(config), "--sampler", "random", "--pruner", "halving"]
    assert sweep.main([*words, f"{RATE}=log(0.005,0.02)", "--trials", "2"]) == 0
    assert sweep.main([*words, f"{RATE}=log(1e-9,1e-8)", "--trials", "3"]) == 0  # another range
    output = capsys.readouterr().out
    folder = Path(config["training"]["save_dir"], "MNIST_Sample-sweep", "learning_rate")
    *good, bad = trials_of(folder)
    assert [one.state.name for one in (*good, bad)][::2] == ["COMPLETE", "PRUNED"]
    epochs = len(bad.intermediate_values)
    assert 1 <= epochs < 60
    name = f"learning_rate={bad.params[RATE]:.4g}"
    assert f"No result of {name}: pruned after {epochs} evaluations" in output
    assert latest(folder / name).name != file_name(60)
    rows = json.loads((folder / "sweep.json").read_text())["settings"]
    assert rows[0]["values"][RATE] in [float(f"{one.params[RATE]:.4g}") for one in good]
    assert rows[-1] == rows[-1] | {"seeds": "0 of 1", "mean": None}
    with open(folder / "sweep.csv") as file:
        assert [row["finished"] for row in csv.DictReader(file)][::2] == ["True", "False"]
    assert sweep.main([*words, f"{RATE}=[0.1]", "--trials", "4"]) == 1
    assert "this search was begun with other values to try" in capsys.readouterr().err


def test_a_failing_trial_is_told_and_the_others_go_on(config, write_config, capsys):
    config["training"] |= {"monitor": "min test_loss", "epochs": 1}
    words = ["-c", write_config(config), f"{RATE}=[0.01,fast]", "--trials", "5",
             "--sampler", "random"]  # fmt: skip
    assert sweep.main(words) == 1
    output = capsys.readouterr().out
    assert "No result of learning_rate=fast: failed: " in output
    folder = Path(config["training"]["save_dir"], "MNIST_Sample-sweep", "learning_rate")
    states = {(one.params[RATE], one.state.name) for one in trials_of(folder)}
    assert states == {("0.01", "COMPLETE"), ('"fast"', "FAIL")}
