"""What is not finite in any split, field and row; errors within and at the end of an epoch."""

import math

import numpy as np
import pytest

from tests.helpers.faulty import Points, held_out, put_faults, strict_lines
from tests.helpers.project import same_arrays
from training.checkpoint.naming import best, latest
from training.checkpoint.reading import read, read_meta

CASES = [
    ("train", "inputs", "nan", "label"), ("test", "inputs", "nan", "label"),
    ("validation", "targets", "nan", "values"), ("train", "targets", "-inf", "values"),
    ("test", "targets", "inf", "values"), ("validation", "inputs", "-inf", "values"),
    ("train", "inputs", "inf", "values"),
]  # fmt: skip


@pytest.mark.parametrize(("split", "field", "value", "kind"), CASES)
def test_a_run_on_such_data_ends_with_split_field_and_example_and_keeps_what_it_trained(
    run, points, capsys, split, field, value, kind
):
    if kind == "values":
        points["training"] |= {"loss": "mean_squared_error", "metrics": []}
    for one in ("train", "test"):
        put_faults(points, one, kind=kind)
    row = held_out(points)[-1] if split == "validation" else 29
    put_faults(points, "test" if split == "test" else "train", [field, row, value])
    code, folder = run()
    error = capsys.readouterr().err
    assert code == 1
    assert f"the {field} of example {row} are not finite ({value}" in error
    assert "Traceback" not in error
    if split != "train":
        assert f"the {split} split: " in error
        assert latest(folder).name == "checkpoint-epoch_1-batch_5.params"
    assert best(folder) is None
    strict_lines(folder)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("fault", [("inputs", "nan"), ("inputs", "text"), ("inputs", "error")])
@pytest.mark.parametrize("steps", [1, 2])
def test_with_the_data_mended_it_resumes_to_the_bits_of_a_run_without_the_fault(
    run, points, monkeypatch, capsys, split, fault, steps
):
    points["data_loader"]["train"]["args"] |= {"shuffle": True, "prefetch": 0}
    points["training"] |= {"metrics": ["accuracy", "macro_f1"], "steps_per_call": steps, "ema": 0.9}
    code, whole = run()
    assert code == 0
    row = [one for one in range(40) if one not in held_out(points)][20]
    put_faults(points, split, [fault[0], row, fault[1]], env="FAULT")
    monkeypatch.setenv("FAULT", "1")
    code, folder = run()
    assert (code, folder != whole) == (1, True)
    error = capsys.readouterr().err
    if fault[1] == "error":
        assert f"a batch cannot be read: OSError: example {row} cannot be read" in error
        assert "tests/helpers/faulty.py" in error
    else:
        assert f"{fault[0]} of example {row} are " in error
    assert "Traceback" not in error
    assert split == "train" or "the test split" in error
    monkeypatch.delenv("FAULT")
    stopped = latest(folder)
    assert stopped is None or split == "train" or "epoch_1-batch_5" in stopped.name
    assert run("--resume", str(folder))[0] == 0
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert same_arrays(read(latest(folder))[0], read(latest(whole))[0])


@pytest.mark.parametrize("examples_of", ["36.0", "4.0", "40.0"])  # of a split
def test_a_metric_that_fails_after_the_epoch_leaves_it_saved(
    run, points, monkeypatch, capsys, examples_of
):
    points["training"] |= {"metrics": ["tests.helpers.faulty:failing"], "log_every": "1000 steps"}
    code, whole = run()
    assert code == 0
    monkeypatch.setenv("FAULT", examples_of)
    code, folder = run()
    assert code == 1
    error = capsys.readouterr().err
    assert "training.metrics.0: failing: its result of the sum ()" in error
    assert "tests/helpers/faulty.py" in error
    monkeypatch.delenv("FAULT")
    assert run("--resume", str(folder))[0] == 0
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_an_infinite_metric_names_its_example_and_is_not_averaged(run, points, capsys):
    points["training"] |= {"metrics": ["tests.helpers.faulty:reciprocal"], "epochs": 1}
    code, folder = run()
    out = capsys.readouterr().out
    assert code == 0
    first = int(np.flatnonzero(Points("test").labels == 2)[0])
    assert f"test split: the values of reciprocal for example {first} are not finite (inf" in out
    assert strict_lines(folder)[-1]["test_reciprocal"] is None


def test_early_stopping_says_why(run, points, capsys):
    points["training"]["optimizer"]["args"]["learning_rate"] = 0.0
    assert run("training.early_stop=1")[0] == 0
    out = capsys.readouterr().out
    assert (
        "Stopped early, in epoch 2, at step 10: for 1 evaluations validation_loss was no better"
        in out
    )


def test_a_metric_without_a_value_is_null_is_warned_of_and_is_never_the_best(run, points, capsys):
    points["training"] |= {
        "metrics": ["tests.helpers.faulty:undefined"], "monitor": "max test_undefined",
        "early_stop": 1,
    }  # fmt: skip
    code, folder = run()
    out = capsys.readouterr().out
    assert code == 0
    epochs = [line for line in strict_lines(folder) if "batch" not in line]
    assert [line["epoch"] for line in epochs] == [1, 2, 3]  # early stopping counts no NaN
    assert all(line["test_undefined"] is None for line in epochs)
    assert all(math.isfinite(line["test_loss"]) for line in epochs)
    assert "epoch 1: test_undefined is nan" in out
    assert "There is no best epoch: test_undefined was never finite (training.monitor)" in out
    assert best(folder) is None
    assert read_meta(latest(folder))["best"] is None
    assert "nan" not in (folder / "report.html").read_text().replace("NaN", "")
