"""Streams: data sets that are read from beginning to end, without a length or larger than memory.

A stream has `__iter__`, which starts from the beginning each time and yields the same records, and
no `__getitem__`. A record is a sample, (input, target). It may have besides:

    decode(record) -> sample    reads what a record stands for, where it is needed, by the workers
    __len__()                   the number of records
    iterate(random)             in place of `__iter__` where it is shuffled: its parts in an order
                                drawn from `random`, a NumPy generator

and its iterator `get_state()` and `set_state(state)`, with states that JSON can hold, as those of
grain have: then a run resumes where it was; else it reads the pass again up to there.

The order: pass after pass over the stream, each with its own order. Where it is shuffled, the
records of each window are permuted, so all that has to be known is where a window begins. A pass is
an epoch; or with `examples_per_epoch`, an epoch is the next so many examples.
"""

import contextlib
import itertools
import json
import math
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from data_loader.workers import read_ahead
from utils import UserError

REMEMBERED = 256  # positions: more windows than are read ahead of the updates


class Position(NamedTuple):
    """Where a window begins."""

    example: int  # examples before it, in the whole sequence of passes
    number: int  # passes before it
    records: int  # records before it in the pass
    state: Any  # of the stream's iterator, or None


def is_stream(dataset: Any) -> bool:
    """Whether a data set can only be read from beginning to end."""
    by_index = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    return hasattr(dataset, "__iter__") and not by_index and not isinstance(dataset, type)


def reads_batches(dataset: Any) -> bool:
    """Whether a data set has `__getitems__`, which reads a whole batch at once.

    That of a base class does not count where a subclass has a `__getitem__` of its own, as it
    would read what the subclass has changed.
    """
    if "__getitems__" in getattr(dataset, "__dict__", {}):
        return True
    for kind in type(dataset).__mro__:
        if "__getitems__" in vars(kind):
            return True
        if "__getitem__" in vars(kind):
            return False
    return hasattr(dataset, "__getitems__")


class Records:
    """Samples by their records, in place of indices: what workers read of a stream."""

    def __init__(self, dataset: Any) -> None:
        self._decode = getattr(dataset, "decode", None)

    def __getitem__(self, record: Any) -> Any:
        """Returns the sample of a record."""
        return self._decode(record) if self._decode else record


class Stream:
    """The sequence of a stream's records, pass after pass, from any of them on.

    Args:
        dataset: see above.
        shuffle: whether each pass has its own order.
        seed: of the orders.
        window: records that are permuted together, or read together without shuffling.
        length: number of records in a pass; None: not known.
        name: of the loader, for messages.
    """

    def __init__(
        self, dataset: Any, shuffle: bool, seed: int, window: int, length: int | None, name: str
    ) -> None:
        if isinstance(dataset, Iterator):
            raise UserError(
                f"{name}: the data set is an iterator, which can be read once; expected a class "
                "whose `__iter__` starts from the beginning"
            )
        self.dataset, self._shuffle, self._seed = dataset, shuffle, seed
        self._window, self._name = window, name
        self.length = length
        self._positions: deque = deque(maxlen=REMEMBERED)

    def position(self, example: int) -> list:
        """Returns where to go on with an example, as JSON can hold it; for `restore`."""
        return list(self._nearest(example))

    def restore(self, position: list) -> None:
        """Takes over the position of an earlier run."""
        self._positions.append(Position(*position))

    def records(self, example: int, endless: bool) -> Iterator[Any]:
        """Yields the records from an example of the sequence on; unless endless, of one pass."""
        position = self._nearest(example)
        skip = example - position.example
        while True:
            following = Position(position.example, position.number + 1, 0, None)
            for here, block in self._blocks(position):
                self._positions.append(here)
                yield from block[skip:]
                skip = max(skip - len(block), 0)
                following = Position(here.example + len(block), here.number + 1, 0, None)
            if not endless:
                return
            position = following

    def _blocks(self, position):
        """Yields (Position, records) of the windows from a position to the end of its pass."""
        source, records = self._open(position), position.records
        example, number = position.example, position.number
        while True:
            state = source.get_state() if hasattr(source, "get_state") else None
            block = list(itertools.islice(source, self._window))
            more = records + len(block) == self.length and next(source, None) is not None
            self._check_length(records, len(block) + more)
            if not block:
                return
            here = Position(example, number, records, state if _is_plain(state) else None)
            if self._shuffle:
                order = np.random.default_rng([self._seed, number, records]).permutation(len(block))
                block = [block[index] for index in order]
            yield here, block
            example, records = example + len(block), records + len(block)

    def _open(self, position):
        """Returns the stream's iterator at a position."""
        random = np.random.default_rng([self._seed, position.number])
        by_parts = self._shuffle and hasattr(self.dataset, "iterate")
        source = self.dataset.iterate(random) if by_parts else iter(self.dataset)
        if position.state is not None:
            source.set_state(position.state)
        else:
            next(itertools.islice(source, position.records, position.records), None)
        return source

    def _check_length(self, before, count):
        """Refuses a pass without records, or of another length than the stream says."""
        total, expected = before + count, self.length
        if not total:
            raise UserError(f"{self._name}: the stream has no record; expected at least one")
        if expected is not None and (total > expected or (not count and total < expected)):
            more = "more" if total > expected else f"{total}"
            raise UserError(
                f"{self._name}: the stream has {more} records, but its length is {expected}"
            )

    def _nearest(self, example):
        """Returns the last known position that is not behind an example."""
        passes = example // self.length if self.length else 0
        start = Position(passes * (self.length or 0), passes, 0, None)
        known = [one for one in list(self._positions) if one.example <= example]
        return max([*known, start], key=lambda one: one.example)


def stream_batches(loader: Any, epoch: int, start: int) -> Iterator[dict[str, Any]]:
    """Iterates over the batches of an epoch of a loader whose data set is a stream."""
    size, left, first = loader.batch_size, math.inf, loader.done(epoch, start)
    if loader.examples is not None:
        left, first = loader.examples - first, first + (epoch - 1) * loader.per_epoch
    records = loader.stream.records(first, endless=loader.examples is not None)

    def read(number):
        wanted = min(size, left - (number - start) * size)
        taken = list(itertools.islice(records, max(wanted, 0)))
        return loader.batch_of_records(taken) if taken else None

    with contextlib.closing(records), contextlib.ExitStack() as stack:
        if loader.prefetch:
            made = read_ahead(read, itertools.count(start), loader.prefetch)
            stack.callback(made.close)  # before the records, which its thread reads
        else:
            made = map(read, itertools.count(start))
        for batch in made:
            if batch is None:
                return
            yield batch


def as_rows(records: list) -> np.ndarray:
    """Returns records as an array of objects, which is cut and indexed as one of indices is."""
    rows = np.empty(len(records), object)
    for index, record in enumerate(records):
        rows[index] = record
    return rows


def _is_plain(state):
    """Whether JSON can hold a state as it is."""
    try:
        return json.loads(json.dumps(state)) == state
    except (TypeError, ValueError):
        return False
