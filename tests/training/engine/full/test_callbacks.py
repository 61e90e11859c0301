"""Callbacks that stop, evaluations within epochs, and the number of steps that ends a run."""

import math

import numpy as np
import pytest

import train
from tests.helpers.hooks import assert_same_run, hook, lines_with, steps_with
from tests.helpers.project import same_arrays
from tests.helpers.tracking import events, json_lines
from training.checkpoint.naming import latest
from training.checkpoint.reading import read, read_meta
from training.config import read_config
from training.sweep.plan import Run
from training.sweep.results import finished, outcome

CONSTANT = "training.optimizer.args.learning_rate=0.01"


def test_an_evaluation_within_an_epoch_is_that_of_the_checkpoint_there(run, points):
    points["training"] |= {"evaluate_every": "3 steps", "save_every": "3 steps", "keep": 9}
    code, folder = run()
    assert code == 0
    names = {path.name for path in folder.glob("checkpoint-epoch*")}
    assert "checkpoint-epoch_2-batch_1.params" in names
    assert "checkpoint-epoch_3.params" in names
    again = train.fit(resume=str(folder / "checkpoint-epoch_2-batch_1.params"))
    del again.metrics["epoch_train_loss"]
    assert again.progress.steps == 15
    seen = {line["step"]: line for line in lines_with(folder, "test_loss")}
    assert sorted(seen) == [3, 6, 9, 12, 15]
    assert seen[15]["test_loss"] == again.metrics["test_loss"] == again.evaluate()["test_loss"]


def test_the_best_within_an_epoch_is_kept_and_evaluations_are_counted(run, points):
    points["training"] |= {"evaluate_every": "2 steps", "early_stop": 2, "monitor": "max test_loss",
                           "save_every": "100 epochs"}  # fmt: skip
    code, folder = run("training.optimizer.args.learning_rate=0.1")
    assert code == 0
    losses = [line["test_loss"] for line in lines_with(folder, "test_loss")]
    best = read_meta(folder / "checkpoint-best.params")
    assert best["best"] == max(losses)
    assert best["steps"] == 2 * (1 + int(np.argmax(losses)))
    assert len(losses) == best["steps"] / 2 + 2
    assert read_meta(latest(folder))["since_best"] == 2


def test_a_run_stopped_anywhere_goes_on_with_the_same_bits_and_lines(run, trusty, monkeypatch):
    trusty["training"] |= {
        "evaluate_every": "3 steps", "save_every": "5 steps", "keep": 50, "steps_per_call": 2,
        "callbacks": [hook("weigh", "4 steps", called="a"), hook("weigh", "1 epoch", called="b")],
        "monitor": "min validation_loss",
    }  # fmt: skip
    _, whole = run()
    assert steps_with(whole, "a") == [4, 8, 12, 16]
    monkeypatch.setenv("SIGNAL_AT", "SIGTERM@13")
    code, parts = run()
    monkeypatch.delenv("SIGNAL_AT")
    assert code == 143
    assert run("--resume", str(parts)) == (0, parts)
    assert_same_run(parts, whole)
    middle = parts / "checkpoint-epoch_1-batch_5.params"
    assert run("--resume", str(middle)) == (0, parts)
    assert_same_run(parts, whole)


@pytest.mark.parametrize("step", [1, 5, 7])
def test_a_stop_ends_the_run_cleanly_and_it_goes_on_if_told(run, points, capsys, step):
    points["training"]["callbacks"] = [hook("stop_at", "1 step", step=step)]
    code, folder = run(CONSTANT)
    out = capsys.readouterr().out
    assert code == 0
    assert f"Stopped by a callback at step {step}: step {step}" in out
    assert (folder / "report.html").exists()
    assert steps_with(folder, "test_loss")[-1] == step
    assert "epoch_train_loss" in json_lines(folder / "metrics.jsonl")[-1]
    meta = read_meta(latest(folder))
    assert (meta["steps"], meta["stopped"]) == (step, f"step {step}")
    lines = (folder / "metrics.jsonl").read_bytes()
    assert run("--resume", str(folder)) == (0, folder)
    said = f"Nothing is left to train: a callback stopped the run at step {step}: step {step}. With"
    assert said in capsys.readouterr().out
    assert (folder / "metrics.jsonl").read_bytes() == lines
    assert run("--resume", str(folder), "training.callbacks=[]") == (0, folder)
    code, whole = run(CONSTANT, "training.callbacks=[]")
    assert same_arrays(read(latest(folder))[0], read(latest(whole))[0])
    assert json_lines(folder / "metrics.jsonl")[-1] == json_lines(whole / "metrics.jsonl")[-1]


def test_a_stop_at_the_end_of_an_epoch_that_is_not_evaluated_is_evaluated(run, points):
    points["training"] |= {
        "evaluate_every": "100 steps", "callbacks": [hook("stop_at", "1 epoch", step=1)]
    }  # fmt: skip
    code, folder = run()
    assert code == 0
    assert steps_with(folder, "test_loss") == [5]
    assert latest(folder).name == "checkpoint-epoch_1.params"


@pytest.mark.parametrize("steps_per_call", [1, 3])
def test_max_steps_end_the_run_at_that_update(run, points, steps_per_call, capsys):
    points["training"] |= {"keep": 50, "save_every": "1 step"}
    _, whole = run(CONSTANT)
    words = [CONSTANT, f"training.steps_per_call={steps_per_call}", "training.save_every=1 epoch"]
    code, folder = run("training.max_steps=7", "training.epochs=null", *words)
    assert code == 0
    assert latest(folder).name == "checkpoint-epoch_2-batch_2.params"
    assert same_arrays(read(latest(folder))[0], read(whole / latest(folder).name)[0])
    assert steps_with(folder, "test_loss") == [5, 7]
    assert (last := lines_with(folder, "epoch_train_loss")[-1])["batch"] == 2
    swept = Run({}, read_config(folder / "config.json"), folder)
    assert finished(swept)
    assert outcome(swept)[2] == last["validation_loss"]
    assert str(last["test_loss"]) in (folder / "report.html").read_text()
    assert run("--resume", str(folder)) == (0, folder)
    assert "Nothing is left to train: 7 of 7 steps are done" in capsys.readouterr().out
    assert run("--resume", str(folder), "training.max_steps=15") == (0, folder)
    assert latest(folder).name == "checkpoint-epoch_3.params"
    assert same_arrays(read(latest(folder))[0], read(latest(whole))[0])
    assert json_lines(folder / "metrics.jsonl")[-1] == json_lines(whole / "metrics.jsonl")[-1]


def test_schedules_follow_max_steps_and_the_smaller_of_both_ends_the_run(run, points, capsys):
    points["training"]["optimizer"]["args"]["learning_rate"] = {
        "name": "linear_schedule",
        "args": {"init_value": 1.0, "end_value": 0.0, "transition_steps": "total_steps"},
    }
    code, folder = run("training.max_steps=10", "training.log_every=1 step", "training.epochs=9")
    assert code == 0
    rates = [line["learning_rate"] for line in lines_with(folder, "learning_rate")]
    assert rates == pytest.approx(np.linspace(1, 0, 10, endpoint=False), abs=1e-6)
    assert latest(folder).name == "checkpoint-epoch_2.params"
    capsys.readouterr()
    assert run("training.max_steps=100", "training.epochs=1")[0] == 0
    assert "training.epochs=1 end after 5 steps, before training.max_ste" in capsys.readouterr().out


def test_what_is_no_number_or_image_is_refused_and_what_is_not_finite_is_null(run, points, capsys):
    points["training"] |= {"trackers": ["tensorboard"], "epochs": 1}
    points["training"]["callbacks"] = [hook("draw", "1 epoch", kind="right")]
    points["training"]["callbacks"] += [hook("log_odd", "1 epoch", value="nan")]
    code, folder = run()
    assert code == 0
    assert lines_with(folder, "odd")[0]["odd"] is None
    assert "step 5: odd is nan" in capsys.readouterr().out
    assert ("drawn", 5) in events(folder)
    assert [path.name for path in (folder / "images" / "drawn").iterdir()] == ["000000005.png"]
    for callback, said in (
        (hook("log_odd", "1 epoch", value="x"), "run.log: odd is 'x'; expected a number (tests/"),
        (hook("log_odd", "1 epoch", value=[1, 2]), "run.log: odd is [1, 2]; expected a number"),
        (hook("draw", "1 epoch", kind="whole"), "image 'drawn': got int64; expected (height, "),
        (hook("draw", "1 epoch", kind="flat"), "image 'drawn': got the shape (4,); expected (he"),
    ):
        points["training"]["callbacks"] = [callback]
        assert run()[0] == 1
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_the_callbacks_here_stop_at_a_value_and_log_the_weights(run, points, capsys):
    points["training"] |= {"trackers": ["tensorboard"], "callbacks": [
        {"name": "stop_when", "args": {"metric": "test_loss", "above": -math.inf}}, "log_weights",
    ]}  # fmt: skip
    points["training"]["callbacks"][0]["args"]["above"] = -1
    code, folder = run()
    assert code == 0
    assert steps_with(folder, "test_loss") == [5]
    assert read_meta(latest(folder))["stopped"].startswith("test_loss is ")
    code, _ = run("training.callbacks.0.args.metric=test_los")
    error = capsys.readouterr().err
    assert code == 1
    assert "stop_when, step 5: no 'test_los' was measured; did you mean 'test_loss'?" in error
