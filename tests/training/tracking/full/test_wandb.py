"""Weights & Biases without a login, over several starts of a run and after an interrupt."""

import os

from tests.helpers.tracking import json_lines, of_kind, wandb_history


def test_wandb_without_a_login_is_one_message(offline, write_config, script, tmp_path):
    environment = {name: value for name, value in os.environ.items() if "WANDB_API" not in name}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    file = write_config(offline)
    done = script("train.py", "-c", file, "wandb.mode=online", env=environment)
    assert done.returncode == 1
    assert "error: Weights & Biases does not start: " in done.stderr
    assert "wandb.mode=offline" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_resumed_run_stays_the_same_run_of_wandb(run, offline):
    _, folder = run("training.epochs=1")
    code, again = run("--resume", str(folder), "training.epochs=2")
    assert (code, again) == (0, folder)
    assert {one.run_id for one in of_kind(folder, "run")} == {folder.name}
    assert {row["epoch"] for row in wandb_history(folder)} == {1, 2}


def test_wandb_has_every_metric_once_after_an_interrupt(run, offline, mnist, monkeypatch):
    dataset = {
        "name": "tests.helpers.networks:Signalling",
        "args": {"root": str(mnist), "split": "train"},
    }
    offline["data_loader"]["train"]["args"]["dataset"] = dataset
    monkeypatch.setenv("SIGNAL_AT", "SIGINT@12")  # in the second epoch
    code, folder = run()
    assert code == 130
    monkeypatch.delenv("SIGNAL_AT")
    assert run("--resume", str(folder)) == (0, folder)
    expected = [(line["step"], line["epoch"]) for line in json_lines(folder / "metrics.jsonl")]
    logged = [(row["_step"], row["epoch"]) for row in wandb_history(folder)]
    assert sorted(logged) == sorted(set(expected))
