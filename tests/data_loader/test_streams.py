"""Streams: order, resuming, lengths, processes; any iterable."""

import copy
import itertools
import json

import grain
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loader.dataloader import DataLoader
from tests.helpers.project import examples
from utils import UserError


class Counting:
    """Yields the samples (i, -i), and counts how many it was asked for."""

    def __init__(self, count, length=None):
        self.count, self.read = count, 0
        if length is not None:
            self.__class__ = type("WithLength", (Counting,), {"__len__": lambda self: length})

    def __iter__(self):
        for index in range(self.count):
            self.read += 1
            yield np.float32([index]), np.int32(-index)


class Cursor:
    """An iterator that can be set to where it was."""

    def __init__(self, count):
        self.count, self.at = count, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.at >= self.count:
            raise StopIteration
        self.at += 1
        return np.float32([self.at - 1]), np.int32(1 - self.at)

    def get_state(self):
        return {"at": self.at}

    def set_state(self, state):
        self.at = state["at"]


class Seekable:
    """A stream whose iterator has a state; it notes where iterators were set to."""

    def __init__(self, count):
        self.count, self.opened = count, []

    def __iter__(self):
        self.opened.append(Cursor(self.count))
        return self.opened[-1]


def numbers(batches):
    """The examples of batches, padding left out, in order."""
    return [
        int(x)
        for batch in batches
        for x, weight in zip(batch["inputs"][:, 0], batch["weight"], strict=True)
        if weight
    ]


def endless(loader, epochs):
    return [number for epoch in range(1, epochs + 1) for number in numbers(loader.batches(epoch))]


@examples(100)
@given(
    st.integers(1, 40), st.integers(1, 9), st.booleans(), st.integers(1, 12), st.integers(0, 2),
    st.sampled_from([Counting, Seekable]), st.data(),
)  # fmt: skip
def test_epochs_follow_each_other_and_resume_anywhere(
    count, batch_size, shuffle, window, prefetch, kind, data
):
    per_epoch = data.draw(st.integers(batch_size, 60))

    def loader():
        return DataLoader(
            kind(count), batch_size, shuffle, examples_per_epoch=per_epoch, prefetch=prefetch,
            shuffle_window=window,
        )  # fmt: skip

    first = loader()
    sequence = endless(first, 4)
    assert len(sequence) == 4 * per_epoch
    passes = [sequence[at : at + count] for at in range(0, len(sequence), count)]
    assert all(sorted(one) == list(range(count)) for one in passes if len(one) == count)
    if not shuffle:
        assert passes[0] == list(range(len(passes[0])))
    epoch = data.draw(st.integers(1, 4))
    start = data.draw(st.integers(0, len(first)))
    expected = sequence[(epoch - 1) * per_epoch : epoch * per_epoch][start * batch_size :]
    for known in (True, False):  # a checkpoint's position, or none
        other = loader()
        if known:
            other.restore(json.loads(json.dumps(first.position(epoch, start))))
        assert numbers(other.batches(epoch, start)) == expected


def test_a_stream_with_a_state_is_set_to_it_and_one_without_is_read_again():
    for kind in (Seekable, Counting):
        trained = DataLoader(kind(1000), 10, True, examples_per_epoch=500, shuffle_window=20)
        whole = numbers(trained.batches(2))
        position = trained.position(2, 40)
        resumed = DataLoader(kind(1000), 10, True, examples_per_epoch=500, shuffle_window=20)
        resumed.restore(position)
        assert numbers(resumed.batches(2, 40)) == whole[400:]
        if kind is Seekable:
            assert position[3] == {"at": 900}
        else:
            assert resumed.dataset.read >= 1000


def test_a_window_shuffles_and_passes_differ():
    loader = DataLoader(Counting(100), 10, True, examples_per_epoch=100, shuffle_window=20)
    first, second = numbers(loader.batches(1)), numbers(loader.batches(2))
    assert sorted(first[:20]) == sorted(second[:20]) == list(range(20))
    assert first != second
    assert first[:20] != sorted(first[:20])
    other = DataLoader(Counting(100), 10, True, 1, examples_per_epoch=100, shuffle_window=20)
    assert numbers(other.batches(1)) != first


@examples(40)
@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from([None, "exact"]))
def test_an_evaluation_reads_a_stream_to_its_end_once(count, batch_size, length):
    batch_size = min(batch_size, count)
    loader = DataLoader(Counting(count, count if length else None), batch_size)
    batches = list(loader.batches(1))
    assert numbers(batches) == list(range(count))
    assert {len(batch["weight"]) for batch in batches} == {batch_size}
    assert sum(batch["weight"].sum() for batch in batches) == count
    assert loader.reads_everything


def test_each_of_several_processes_reads_its_rows():
    whole = DataLoader(Counting(37), 8, True, examples_per_epoch=30, shuffle_window=5)
    parts = []
    for index in range(2):
        part = copy.copy(whole)
        part.shard = (index, 2)
        parts.append(list(part.batches(2)))
    for batch, *halves in zip(whole.batches(2), *parts, strict=True):
        for name in ("inputs", "targets", "weight"):
            together = np.concatenate([half[name] for half in halves])
            np.testing.assert_array_equal(together, batch[name])


class Squares(Counting):
    """Records that are decoded."""

    def __iter__(self):
        return iter(range(self.count))

    def decode(self, record):
        return np.float32([record]), np.int32(record**2)


@pytest.mark.parametrize("workers", [0, 2])
def test_records_are_decoded_by_workers(workers):
    loader = DataLoader(Squares(20), 6, workers=workers)
    targets = np.concatenate([batch["targets"] for batch in loader.batches(1)])
    assert targets[:20].tolist() == [index**2 for index in range(20)]


def test_a_data_set_of_grain_is_a_stream_that_resumes():
    def loader():
        source = grain.MapDataset.source(range(50)).to_iter_dataset()
        dataset = source.map(lambda index: (np.float32([index]), np.int32(-index)))
        return DataLoader(dataset, 5, True, examples_per_epoch=30, shuffle_window=10)

    trained, resumed = loader(), loader()
    whole = numbers(trained.batches(2))
    resumed.restore(json.loads(json.dumps(trained.position(2, 3))))
    assert numbers(resumed.batches(2, 3)) == whole[15:]


@pytest.mark.parametrize(
    ("dataset", "arguments", "message"),
    [
        (Counting(9), {"validation_split": 0.1}, "validation_split needs a data set that is read"),
        (Counting(9), {"sampler": [1]}, "sampler needs a data set that is read by index"),
        (Counting(9), {"workers": 2}, "a stream that yields samples as they are"),
        (Counting(9), {"shuffle_window": 0}, "shuffle_window is 0"),
        (iter([(1, 1)]), {}, "an iterator, which can be read once"),
        (Counting(3, 3), {}, "only 3 examples"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(dataset, arguments, message):
    with pytest.raises(UserError, match=message):
        DataLoader(dataset, 4, **arguments)


def test_a_stream_of_another_length_than_it_says_is_refused():
    for length, message in ((8, "has more records, but its length is 8"), (12, "has 10 records")):
        loader = DataLoader(Counting(10, length), 4)
        with pytest.raises(UserError, match=message):
            list(loader.batches(1))


def test_an_epoch_goes_on_with_batches_of_another_size():
    whole = endless(DataLoader(Counting(50), 10, True, examples_per_epoch=60), 3)
    other = DataLoader(Counting(50), 7, True, examples_per_epoch=60).continue_epoch(2, 3, 30)
    assert numbers(other.batches(2, 3)) == whole[90:120]
    assert other.batches_in(2) == 3 + 5
    assert numbers(other.batches(2, 5)) == whole[104:120]
    assert numbers(other.batches(3)) == whole[120:]


def test_an_empty_stream_is_refused():
    for arguments in ({}, {"examples_per_epoch": 5}):
        with pytest.raises(UserError, match="the stream has no record"):
            list(DataLoader(Counting(0), 4, **arguments).batches(1))


def test_an_endless_stream_needs_the_length_of_an_epoch():
    class Endless(Counting):
        def __iter__(self):
            return ((np.float32([index]), np.int32(0)) for index in itertools.count())

    assert endless(DataLoader(Endless(0), 4, examples_per_epoch=10), 3) == list(range(30))
    with pytest.raises(UserError, match="say how many examples are an epoch, with examples_per_ep"):
        len(DataLoader(Endless(0), 4))


def test_no_thread_is_left_where_a_loop_ends_early():
    import threading

    before = threading.active_count()
    batches = DataLoader(Counting(100), 4, examples_per_epoch=100, prefetch=2).batches(1)
    next(batches)
    batches.close()
    assert threading.active_count() == before
