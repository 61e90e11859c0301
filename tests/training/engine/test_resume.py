"""Resuming with other settings: what is meant happens, and what changes is said."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loader.base import BaseDataLoader
from tests.helpers.project import examples
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


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"rates": {"a": [1]}}, {"rates": {"a": "bc"}}])
def test_a_position_that_cannot_be_is_refused(wrong):
    with pytest.raises(UserError, match="does not say how far a run has come"):
        Progress.from_meta(Progress().meta() | wrong)


def test_of_an_epoch_of_which_nothing_is_left_no_batch_is_read():
    loader = Numbers(np.arange(10), 4).continue_epoch(1, 2, 10)
    assert list(loader.batches(1, 2)) == []
    assert loader.batches_in(1) == 2
    assert len(list(loader.batches(2))) == loader.batches_in(2) == 3
