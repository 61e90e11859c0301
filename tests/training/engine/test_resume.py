"""Resuming with other settings: what is meant happens, and what changes is said."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loader.base import BaseDataLoader
from tests.helpers.project import TRAIN_EXAMPLES, examples
from tests.helpers.tracking import json_lines
from training.checkpoint.naming import latest
from training.checkpoint.reading import read_meta
from training.engine.progress import Progress
from utils import UserError


class Numbers(BaseDataLoader):
    """Its examples are their own indices."""

    def read(self, indices):
        return {"inputs": indices, "targets": indices}


def seen(batch):
    return batch["inputs"][batch["weight"] > 0].tolist()


@examples(60)
@given(
    st.integers(1, 40), st.booleans(),
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 9)), min_size=1, max_size=8),
)  # fmt: skip
def test_every_example_comes_once_in_an_epoch_whatever_the_batch_sizes_between_interrupts(
    count, shuffle, starts
):
    """Each start has a batch size, and is interrupted after some batches; the last is not."""
    progress, epochs, done = Progress(), 3, {1: [], 2: [], 3: []}
    for index, (size, interrupted) in enumerate(starts):
        progress = Progress.from_meta(json.loads(json.dumps(progress.meta())))
        loader = progress.continue_with(Numbers(np.arange(count), min(size, count), shuffle))
        total = progress.total_steps(loader, epochs)
        left = interrupted if index < len(starts) - 1 else 10**6
        while progress.epochs < epochs and left:
            batches = list(loader.batches(progress.epochs + 1, progress.batch))
            assert progress.batches(loader) == progress.batch + len(batches)
            for batch in batches[:left]:
                done[progress.epochs + 1] += seen(batch)
                progress.batch, progress.steps = progress.batch + 1, progress.steps + 1
                assert progress.total_steps(loader, epochs) == total
            left -= min(left, len(batches))
            assert min(progress.examples(), count) == len(done[progress.epochs + 1])
            if progress.batch == progress.batches(loader):
                progress.end_epoch({"loss": 1.0}, "min loss")
    for numbers in done.values():
        assert sorted(numbers) == list(range(count))
    assert progress.steps == total


def last_epoch(folder):
    return json_lines(folder / "metrics.jsonl")[-1]


def test_an_epoch_goes_on_with_the_examples_it_has_not_seen_at_another_batch_size(
    run, trusty, monkeypatch, capsys
):
    monkeypatch.setenv("SIGNAL_AT", "SIGINT@14")  # in the second epoch
    code, folder = run("data_loader.train.args.batch_size=100")
    monkeypatch.delenv("SIGNAL_AT")
    done = read_meta(latest(folder))
    assert code == 130
    assert (done["epochs"], 0 < done["batch"] < 9, done["batch_size"]) == (1, True, 100)
    capsys.readouterr()
    assert run("--resume", str(folder), "data_loader.train.args.batch_size=64") == (0, folder)
    held_in = TRAIN_EXAMPLES * 9 // 10
    seen = 100 * done["batch"]
    assert f"Epoch 2 goes on behind {seen} of its {held_in} examples" in capsys.readouterr().out
    assert last_epoch(folder)["step"] == 9 + done["batch"] + -(-(held_in - seen) // 64)
    steps = [line["step"] for line in json_lines(folder / "metrics.jsonl") if "batch" in line]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"rates": {"a": [1]}}, {"rates": {"a": "bc"}}])
def test_a_position_that_cannot_be_is_refused(wrong):
    with pytest.raises(UserError, match="does not say how far a run has come"):
        Progress.from_meta(Progress().meta() | wrong)


def test_of_an_epoch_of_which_nothing_is_left_no_batch_is_read():
    loader = Numbers(np.arange(10), 4).continue_epoch(1, 2, 10)
    assert list(loader.batches(1, 2)) == []
    assert loader.batches_in(1) == 2
    assert len(list(loader.batches(2))) == loader.batches_in(2) == 3
