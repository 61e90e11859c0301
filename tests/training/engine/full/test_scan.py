"""Signals, seeds and non-finite steps where a call makes several updates."""

import importlib.util
import json

import numpy as np
import pytest

from tests.helpers import labelled
from tests.helpers.project import ROOT, same_arrays
from tests.helpers.scans import SEVERAL, last_line
from training.checkpoint.naming import latest
from training.checkpoint.reading import read
from training.common.trees import named_leaves, pick
from training.config import read_config
from training.engine.build import build
from training.engine.initialize import first_batch, fresh_state
from training.tracking.metric_logger import MetricAccumulator


def test_a_signal_within_a_call_stops_the_run_after_it_and_it_resumes_exactly(
    run, trusty, monkeypatch
):
    _, plain = run()
    monkeypatch.setenv("SIGNAL_AT", "SIGINT@5")
    code, stopped = run(SEVERAL)
    assert code == 130
    monkeypatch.delenv("SIGNAL_AT")
    assert read(latest(stopped))[1]["batch"] == 3  # between two calls, in the middle of an epoch
    assert run("--resume", str(stopped)) == (0, stopped)
    assert (plain / "metrics.jsonl").read_bytes() == (stopped / "metrics.jsonl").read_bytes()
    assert same_arrays(read(latest(plain))[0], read(latest(stopped))[0])


def test_a_step_that_is_not_finite_is_found_within_a_call(run, config):
    config["training"]["optimizer"] = {"name": "sgd", "args": {"learning_rate": 1e30}}
    saved = []
    for setting in ("training.steps_per_call=1", SEVERAL):
        code, folder = run(setting)
        assert code == 1
        saved += [read(path) for path in folder.glob("not-finite-step_*.params")]
    (plain, meta), (several, same_meta) = saved
    assert same_arrays(plain, several)
    assert meta == same_meta
    assert meta["batch"] % 3  # not the first of a call


def test_a_run_of_several_seeds_resumes_exactly_and_is_evaluated_by_test_py(
    run, trusty, monkeypatch, capsys
):
    trusty["training"] |= {"ema": None, "metrics": ["accuracy"]}
    _, whole = run("training.seeds=2", SEVERAL)
    monkeypatch.setenv("SIGNAL_AT", "SIGTERM@2")
    code, stopped = run("training.seeds=2", SEVERAL)
    assert code == 143
    monkeypatch.delenv("SIGNAL_AT")
    assert run("--resume", str(stopped)) == (0, stopped)
    assert (whole / "metrics.jsonl").read_bytes() == (stopped / "metrics.jsonl").read_bytes()
    assert same_arrays(read(latest(whole))[0], read(latest(stopped))[0])
    report = (stopped / "report.html").read_text()
    assert "the first of 2 seeds" in report
    assert " over the seeds; best " in report
    spec = importlib.util.spec_from_file_location("evaluation_script", ROOT / "test.py")
    evaluation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(evaluation)
    assert evaluation.main(["-w", str(stopped), "--latest"]) == 0
    assert f"accuracy @ {last_line(stopped)['test_accuracy']}\n" in capsys.readouterr().out


def test_several_seeds_begin_with_the_same_pretrained_parameters(run, config, write_config):
    _, first = run("training.epochs=1")
    overrides = [f"training.checkpoint={latest(first)}", "training.seeds=2"]
    several = read_config(write_config(config), overrides)
    params = named_leaves({"params": fresh_state(build(several), several).params})
    given = {name: leaf for name, leaf in read(latest(first))[0].items() if name in params}
    assert same_arrays(params, {name: np.stack([leaf] * 2) for name, leaf in given.items()})


def test_the_seed_whose_step_is_not_finite_is_the_one_examined(run, config, script, capsys):
    """By its own parameters and key; with those of the other copy the step is finite."""
    config["model"] = {"name": "tests.helpers.networks:unlucky"}
    code, folder = run("training.seeds=2", "seed=3")
    assert code == 1
    assert "not finite is that of layer luck" in capsys.readouterr().err
    (saved,) = folder.glob("not-finite-*.params")
    assert read(saved)[1]["copy"] == 1
    replayed = script("-m", "training.debug.nan", saved)
    assert replayed.returncode == 0, replayed.stderr
    assert "not finite is that of layer luck" in replayed.stdout


def test_check_shows_one_of_the_seeds(run, config, capsys):
    code, _ = run("--check", "training.seeds=2", SEVERAL)
    out = capsys.readouterr().out
    assert code == 0
    assert "12,730 " in out
    assert "All is well." in out


def test_each_of_several_seeds_is_the_run_with_that_seed(run, config, capsys):
    config["model"]["args"]["drop_rate"] = 0.2
    config["data_loader"]["augment"] = None
    config["data_loader"]["train"]["args"]["seed"] = 5  # the order that all share
    # Not Adam, which makes a whole step of a gradient that is zero but for rounding.
    config["training"]["optimizer"] = {"name": "sgd", "args": {"learning_rate": 0.1}}
    config["training"]["metrics"] = ["accuracy", "macro_f1"]
    _, copies = run("seed=7", "training.seeds=2")
    console = capsys.readouterr().out
    arrays, metrics = read(latest(copies))[0], last_line(copies)
    singles = []
    for copy, seed in enumerate((7, 8)):
        _, single = run(f"seed={seed}")
        singles.append(last_line(single))
        for name, array in read(latest(single))[0].items():
            np.testing.assert_allclose(arrays[name][copy], array, rtol=1e-4, atol=1e-5)
    parameters = json.loads((single / "environment.json").read_text())["parameters"]
    assert f"The model has {parameters} parameters" in console
    for name in ("epoch_train_loss", "test_loss", "test_accuracy", "test_macro_f1"):
        values = [one[name] for one in singles]
        assert metrics[name] == pytest.approx(np.mean(values), rel=1e-4)
        assert metrics[f"{name}_std"] == pytest.approx(np.std(values, ddof=1), rel=1e-3)
        assert np.ptp(values) > 0
    shown = f"[test] accuracy @ {metrics['test_accuracy']} ± {metrics['test_accuracy_std']:.2g}"
    assert shown in console


def test_two_seeds_train_two_networks_with_the_mean_of_their_metrics(run, config):
    code, folder = run("training.seeds=2", "training.epochs=1")
    assert code == 0
    arrays, metrics = read(latest(folder))[0], last_line(folder)
    (name,) = (name for name in arrays if name.endswith("params/hidden0/kernel"))
    assert arrays[name].shape == (2, 784, 16)
    assert (arrays[name][0] != arrays[name][1]).any()
    assert metrics["test_loss_std"] > 0


@pytest.fixture
def parts_of(config, write_config):
    return lambda *overrides: build(read_config(write_config(config), overrides))


def test_the_ragged_last_call_of_an_epoch_compiles_nothing(parts_of, trusty):
    experiment = parts_of(SEVERAL)
    state = experiment.init(first_batch(experiment))
    counts = []
    for start in (0, 5):
        for call, count in experiment.batches(1, start):
            state, measured = experiment.update(state, call)
            counts.append(count)
    assert counts == [3, 3, 2, 3]
    assert measured["loss"][0].shape == (3,)
    assert state.step == sum(counts)
    assert experiment.update._cache_size() == 1


@pytest.mark.parametrize(("pieces", "steps"), [(1, 1), (4, 1), (1, 3), (2, 2), (3, 3)])
def test_a_confusion_matrix_of_seeds_pieces_and_several_updates_is_that_of_numpy(
    tmp_path, write_config, pieces, steps
):
    config = labelled.small_config(tmp_path)
    config["data_loader"]["train"]["args"] |= {"batch_size": 12, "shuffle": False}
    config["training"] |= {
        "metrics": ["confusion_matrix"], "seeds": 2, "accumulate": pieces, "steps_per_call": steps,
        "optimizer": {"name": "sgd", "args": {"learning_rate": 0.0}},
    }  # fmt: skip
    experiment = build(read_config(write_config(config)))
    state, sums = experiment.init(first_batch(experiment)), MetricAccumulator()
    logits = [experiment.forward(pick(state.params, seed), labelled.Points().x, None, False)[0]
              for seed in range(2)]  # fmt: skip
    for call, count in experiment.batches(1, 0):
        state, measured = experiment.update(state, call)
        for step in range(count):
            sums.add(measured if steps == 1 else pick(measured, step))
    for seed in range(2):
        expected = np.zeros((3, 3))
        np.add.at(expected, (labelled.Points().y, logits[seed].argmax(-1)), 1)
        np.testing.assert_array_equal(sums.sums["confusion_matrix"][0][seed], expected)
