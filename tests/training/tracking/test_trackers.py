"""Figures in the real Weights & Biases (offline) and in real TensorBoard event files."""

import json
import os
import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture
def offline(config, monkeypatch, tmp_path):
    for folder in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(folder, str(tmp_path / "wandb"))
    config["wandb"] = {"enabled": True, "mode": "offline", "project": "tests", "group": "a group"}
    return config


def test_wandb_without_a_login_is_one_message(offline, write_config, script, tmp_path):
    environment = {name: value for name, value in os.environ.items() if "WANDB_API" not in name}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    file = write_config(offline)
    done = script("train.py", "-c", file, "wandb.mode=online", env=environment)
    assert done.returncode == 1
    assert "error: Weights & Biases does not start: " in done.stderr
    assert "wandb.mode=offline" in done.stderr
    assert "Traceback" not in done.stderr


def log_records(data, block=32768):
    """The records of a file in LevelDB's log format, behind W&B's own header of 7 bytes.

    https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    position, experiment = 7, b""
    while position + 7 <= len(data):
        if block - position % block < 7:  # the rest of a block is too short for a header
            position += block - position % block
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        experiment += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield experiment
            experiment = b""


def records(folder):
    """The records of a run's offline W&B files."""
    from wandb.proto.wandb_internal_pb2 import Record

    files = sorted(folder.rglob("run-*.wandb"))
    return [Record.FromString(data) for file in files for data in log_records(file.read_bytes())]


def history(folder):
    """Every figure that W&B was handed: [{name: value}]."""
    return [
        {
            (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
            for item in record.history.item
        }
        for record in records(folder)
        if record.WhichOneof("record_type") == "history"
    ]


def test_wandb_gets_config_figures_and_the_last_checkpoint(run, offline):
    code, folder = run()
    assert code == 0
    found = records(folder)
    (started, *_) = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert folder.name == started.run_id
    assert started.project == "tests"
    assert started.run_group == "a group"
    assert json.loads((folder / "config.json").read_text())["wandb"]["id"] == folder.name
    logged = history(folder)
    expected = lines(folder / "metrics.jsonl")
    for line in expected:
        (row,) = [row for row in logged if line.items() - {("step", line["step"])} <= row.items()]
        assert row["_step"] == line["step"]
    artifacts = [
        record.request.log_artifact.artifact
        for record in found
        if record.WhichOneof("record_type") == "request"
        and record.request.WhichOneof("request_type") == "log_artifact"
    ] + [record.artifact for record in found if record.WhichOneof("record_type") == "artifact"]
    (artifact,) = artifacts
    assert [entry.path for entry in artifact.manifest.contents] == ["checkpoint-epoch_2.params"]


def test_wandb_disabled_is_called_but_keeps_nothing(run, offline):
    code, folder = run("wandb.mode=disabled")
    assert code == 0
    assert not list(folder.rglob("*.wandb"))


def test_a_resumed_run_stays_the_same_run_of_wandb(run, offline):
    _, folder = run("training.epochs=1")
    code, again = run("--resume", str(folder), "training.epochs=2")
    assert (code, again) == (0, folder)
    ids = {r.run.run_id for r in records(folder) if r.WhichOneof("record_type") == "run"}
    assert ids == {folder.name}
    assert {row["epoch"] for row in history(folder)} == {1, 2}


def test_wandb_has_every_figure_once_after_an_interrupt(run, offline, mnist, monkeypatch):
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
    expected = [(line["step"], line["epoch"]) for line in lines(folder / "metrics.jsonl")]
    logged = [(row["_step"], row["epoch"]) for row in history(folder)]
    assert sorted(logged) == sorted(set(expected))


def events(folder):
    """The scalars of the event files: {(name, step): value}; framing as TFRecord has it."""
    found = {}
    for file in folder.glob("events.out.tfevents.*"):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    return found


def test_tensorboard_gets_the_figures_of_metrics_jsonl(run, config):
    config["training"]["tensorboard"] = True
    code, folder = run()
    assert code == 0
    found = events(folder)
    for line in lines(folder / "metrics.jsonl"):
        for name, value in line.items():
            if name != "step":
                assert found[name, line["step"]] == pytest.approx(value, rel=1e-6)
