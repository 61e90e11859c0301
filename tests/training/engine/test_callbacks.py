"""Callbacks: what they see, and that nothing is lost where one fails; more is in full."""

import logging

import numpy as np
import pytest

import train
from tests.helpers.hooks import assert_same_run, hook, lines_with, steps_with, weigh
from tests.helpers.project import by_set


def test_each_is_called_at_its_own_steps_and_sees_the_latest_numbers(run, points):
    points["training"] |= {
        "evaluate_every": "4 steps", "steps_per_call": 2,
        "callbacks": [hook("weigh", "3 steps", called="a"), hook("weigh", "1 epoch", called="b")],
    }  # fmt: skip
    code, folder = run("training.callbacks.1.every=2 epochs")
    assert code == 0
    assert steps_with(folder, "a") == [3, 6, 9, 12, 15]
    assert steps_with(folder, "b") == [10]
    assert steps_with(folder, "test_loss") == [4, 8, 12, 15]
    assert steps_with(folder, "epoch_train_loss") == [5, 10, 15]
    assert [line["a_metrics"] > 0 for line in lines_with(folder, "a")] == [False, *[True] * 4]
    placed = [(line["epoch"], line["batch"]) for line in lines_with(folder, "a")]
    assert placed == [(1, 3), (2, 1), (2, 4), (3, 2), (3, 5)]


@pytest.mark.parametrize("step", by_set([7], [1, 5, 7]))
def test_an_error_in_a_callback_loses_nothing(run, points, monkeypatch, capsys, step):
    points["training"] |= {
        "evaluate_every": "1 step", "monitor": "min test_loss", "steps_per_call": 3,
        "callbacks": [hook("fail_at", "1 step", step=step)],
    }  # fmt: skip
    code, folder = run()
    error = capsys.readouterr().err
    assert code == 1
    assert f"training.callbacks.0: fail_at, step {step}: OSError: the disk of the call" in error
    assert "(tests/helpers/hooks.py:" in error
    assert 'raise OSError("the disk of the callback is full"))' in error
    assert "Traceback" not in error
    monkeypatch.setenv("HEALTHY", "1")
    assert run("--resume", str(folder)) == (0, folder)
    code, whole = run()
    assert code == 0
    assert_same_run(folder, whole)


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (hook("with_two", "1 epoch"), "with_two(run, other): missing a required argument: 'other'"),
        (hook("without", "1 epoch"), "a callback is called with the run alone, f(run)"),
        (hook("later", "1 epoch"), "expected a plain function f(run), no class, generator or"),
        (hook("OfARun", "1 epoch"), "expected a plain function f(run), no class, generator or"),
        (hook("weigh", "1 epoch", calld="x"), "takes no argument 'calld'; did you mean 'called'?"),
        (hook("weigh", "1 epoch", run="x"), "takes no argument 'run'"),
        (hook("wegh", "1 epoch"), "no 'wegh' in tests.helpers.hooks; did you mean 'weigh'?"),
    ],
)
def test_what_cannot_be_called_with_the_run_is_refused_before_anything_is_read(
    run, points, capsys, callback, said
):
    points["training"]["callbacks"] = [callback]
    for check in ([], ["--check"]):
        assert run(*check) == (1, None)
        error = capsys.readouterr().err
        assert "training.callbacks.0" in error
        assert said in error


def test_from_python_functions_are_callbacks_and_see_the_run(points, caplog):
    seen = []

    def look(run):
        outputs = run.predict(np.zeros((2, 4), np.float32))
        loss = run.evaluate("validation")["validation_loss"]
        seen.append((run.step, run.epoch, run.metrics["validation_loss"] == loss, outputs.shape))
        assert run.folder.is_dir()
        assert run.config.title == points["title"]

    with caplog.at_level(logging.INFO):
        run = train.fit(points, callbacks=[look, (weigh, "4 steps")])
    assert seen == [(5, 1, True, (2, 3)), (10, 2, True, (2, 3)), (15, 3, True, (2, 3))]
    assert steps_with(run.folder, "weights") == [4, 8, 12]
    assert (run.step, run.epoch) == (15, 3)
    with pytest.raises(train.utils.UserError, match=r"run.log: nothing is trained now"):
        run.log(x=1)
    again = train.fit(resume=run.folder)
    assert {name: one for name, one in run.metrics.items() if np.ndim(one) == 0} == again.metrics
    for wrong in (3, (look, "often"), lambda: None):
        with pytest.raises(train.utils.UserError, match=r"fit: callbacks\[0\]"):
            train.fit(points, callbacks=[wrong])
