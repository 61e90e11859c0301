"""Weights & Biases without a login, over several starts of a run and after an interrupt."""

import json
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
    assert_whole(folder)


def test_a_run_resumed_from_an_earlier_checkpoint_has_its_new_figures_alone(run, offline):
    _, folder = run()
    earlier = str(folder / "checkpoint-epoch_1.params")
    changed = "training.optimizer.args.learning_rate=1e-3"
    assert run("--resume", earlier, changed) == (0, folder)
    assert_whole(folder)
    assert len(list((folder / "wandb" / "replaced").iterdir())) == 1


def test_a_run_that_is_given_to_wandb_later_begins_there_with_its_first_figures(run, offline):
    offline["wandb"]["enabled"] = False
    _, folder = run("training.epochs=1")
    code, _ = run(
        "--resume", str(folder), "training.epochs=2", "wandb.enabled=True", "wandb.id=a-b"
    )
    assert code == 0
    assert_whole(folder)


def assert_whole(folder):
    """The one folder that `wandb sync` finds holds the figures of metrics.jsonl, each once."""
    (synced,) = (folder / "wandb").glob("offline-run-*")
    rows = [{name: value for name, value in row.items() if name[0] != "_" or name == "_step"}
            for row in wandb_history(synced)]  # fmt: skip
    lines = [{"_step": line.pop("step")} | line for line in json_lines(folder / "metrics.jsonl")]
    assert merged(rows) == merged(lines)


def merged(rows):
    """{step: values}: what is logged of a step in several calls is one row of W&B."""
    steps = {}
    for row in rows:
        steps[row["_step"]] = steps.get(row["_step"], {}) | row
    return steps


def test_wandb_disabled_is_called_but_keeps_nothing(run, offline):
    code, folder = run("wandb.mode=disabled")
    assert code == 0
    assert not list(folder.rglob("*.wandb"))


def test_wandb_gets_config_metrics_and_the_last_checkpoint(run, offline):
    code, folder = run()
    assert code == 0
    started = of_kind(folder, "run")[0]
    assert folder.name == started.run_id
    assert started.project == "tests"
    assert started.run_group == "a group"
    assert json.loads((folder / "config.json").read_text())["wandb"]["id"] == folder.name
    logged = wandb_history(folder)
    for line in json_lines(folder / "metrics.jsonl"):
        (row,) = [row for row in logged if line.items() - {("step", line["step"])} <= row.items()]
        assert row["_step"] == line["step"]
    requests = of_kind(folder, "request")
    artifacts = [
        request.log_artifact.artifact
        for request in requests
        if request.WhichOneof("request_type") == "log_artifact"
    ] + of_kind(folder, "artifact")
    (artifact,) = artifacts
    assert [entry.path for entry in artifact.manifest.contents] == ["checkpoint-epoch_2.params"]
    assert [one.exit_code for one in of_kind(folder, "exit")] == [0]
