"""What is not finite in the data, the outputs or a metric: named, never averaged, never written."""

import json
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.faulty import put_faults
from tests.helpers.project import examples, same_arrays
from training.checkpoint.naming import best, latest
from training.checkpoint.reading import read
from training.engine.finite import non_finite_field
from training.engine.progress import Progress

VALUES = ("nan", "inf", "-inf")


@examples(40)
@given(st.data())
def test_the_field_and_the_example_of_a_batch_are_named(data):
    rows, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    batch = {
        "inputs": {"a": np.zeros((rows, width), np.float32), "b": np.zeros(rows, np.uint8)},
        "targets": np.zeros((rows, 2), np.float16),
        "weight": np.ones(rows, np.float32),
    }
    numbers = data.draw(st.permutations(range(100)))[:rows]
    assert non_finite_field(batch, numbers) == ""
    field = data.draw(st.sampled_from(["inputs.a", "targets", "weight"]))
    leaf = batch["inputs"]["a"] if field == "inputs.a" else batch[field]
    row, value = data.draw(st.integers(0, rows - 1)), data.draw(st.sampled_from(VALUES))
    leaf.reshape(rows, -1)[row, -1] = float(value)
    at = "" if leaf.ndim == 1 else f" at [{leaf.shape[1] - 1}]"
    expected = f"the {field} of example {numbers[row]} are not finite ({value}{at})"
    assert non_finite_field(batch, numbers) == expected
    assert f"row {row} of the batch" in non_finite_field(batch)


def test_a_bad_test_row_is_named_and_with_it_mended_the_run_ends_as_if_it_had_never_been(
    run, points, monkeypatch, capsys
):
    code, whole = run()
    assert code == 0
    put_faults(points, "test", ["inputs", 37, "nan"], env="FAULT")
    monkeypatch.setenv("FAULT", "1")
    code, folder = run()
    assert code == 1
    error = capsys.readouterr().err
    assert "the test split: the inputs of example 37 are not finite (nan at [3])" in error
    assert (latest(folder).name, best(folder)) == ("checkpoint-epoch_1-batch_5.params", None)
    monkeypatch.delenv("FAULT")
    assert run("--resume", str(folder))[0] == 0
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert same_arrays(read(latest(folder))[0], read(latest(whole))[0])


@examples(40)
@given(
    values=st.lists(st.sampled_from([math.nan, math.inf, -math.inf, 1.0, 2.0, 3.0])),
    sense=st.sampled_from(["min", "max"]),
)
def test_the_best_and_the_patience_are_those_of_the_finite_values_alone(values, sense):
    progress, only = Progress(), Progress()
    for value in values:
        progress.end_epoch({"x": value}, f"{sense} x")
        if math.isfinite(value):
            only.end_epoch({"x": value}, f"{sense} x")
    assert (progress.best, progress.since_best) == (only.best, only.since_best)
    assert progress.epochs == len(values)
    json.dumps(progress.meta(), allow_nan=False)


@examples(40)
@given(st.lists(st.sampled_from([math.nan, math.inf, -math.inf, 0.5]), min_size=1))
def test_sums_that_are_not_finite_are_kept_to_the_bit_in_plain_json(values):
    from training.tracking.metric_logger import MetricAccumulator

    sums = MetricAccumulator()
    for value in values:
        sums.add({"x": (np.float32(value), np.float32(1)), "m": (np.full(3, value), 1.0)})
    text = json.dumps(sums.to_json(), allow_nan=False)
    again = MetricAccumulator(json.loads(text))
    for name, pair in sums.sums.items():
        for one, other in zip(pair, again.sums[name], strict=True):
            np.testing.assert_array_equal(one, other)
