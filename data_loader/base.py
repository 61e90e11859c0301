"""Which examples, in which order, in which batch: the base class of every loader.

A batch is a dict of NumPy arrays: "inputs", (batch, ...) or a dict of such; "targets",
(batch, ...); "weight", (batch,) float32. The last batch of an epoch is padded with real examples of
weight 0, so that every batch has one shape and nothing recompiles.

The order of an epoch is a pure function of (seed, epoch): to resume, two integers are enough, the
epoch and the number of batches that are done.
"""

import copy
import functools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Self

import numpy as np

from utils import UserError

SPLIT_EPOCH = 0  # epochs count from 1, so the shuffle of epoch 0 is free to draw the split


class BaseDataLoader:
    """Deals a data set out in batches; a subclass says how a batch is read.

        class Squares(BaseDataLoader):
            def read(self, indices):
                x = self.dataset[indices]
                return {"inputs": x, "targets": x**2}

        for batch in Squares(np.arange(100), batch_size=8, shuffle=True).batches(epoch=1):
            ...

    Args:
        dataset: anything with a length.
        batch_size: examples in a batch.
        shuffle: whether every epoch has its own order.
        seed: whole number that the orders and the split are drawn from.
        validation_split: share (0.1) or number (5000) of the examples to hold out.
        prefetch: batches that a background thread reads ahead; 0 reads in the foreground. None is
            0 for a data set with `__getitems__`, whose reading is cheaper than a thread, else 2.

    Attributes:
        examples: number of examples in an epoch, without those held out.
        batch_size: as above, of all processes together.
        shard: (index, count) if it reads only one of `count` equal parts of each batch.
    """

    shard = (0, 1)

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        validation_split: float = 0,
        prefetch: int | None = None,
    ) -> None:
        if prefetch is None:
            prefetch = 0 if hasattr(dataset, "__getitems__") else 2
        self.dataset, self.shuffle = dataset, shuffle
        self.batch_size = self._whole_number("batch_size", batch_size, 1)
        self.seed = self._whole_number("seed", seed, 0)
        self.prefetch = self._whole_number("prefetch", prefetch, 0)
        self._indices, self._held_out = self._split(self._length(), validation_split)
        self.examples = len(self._indices)
        if self.batch_size > self.examples:
            raise UserError(
                f"{self._name}: batch_size is {self.batch_size}, but there are only "
                f"{self.examples} examples to read; expected at most as many. "
                "Lower batch_size or bring more data."
            )

    def read(self, indices: np.ndarray) -> dict[str, Any]:
        """Reads the examples `indices`, (batch,) int64, as {"inputs": ..., "targets": ...}.

        The batch may bring a "weight" of its own, (batch,) or (batch, positions).
        """
        raise NotImplementedError(f"{self._name}: a loader needs read(self, indices)")

    def __len__(self) -> int:
        """Returns the number of batches in an epoch; the last one may be padded."""
        return -(-self.examples // self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[dict[str, Any]]:
        """Iterates over the batches `start`, `start + 1`, ... of an epoch.

        Args:
            epoch: number of the epoch, from 1.
            start: number of batches to leave out at the front, for resuming.
        """
        read = functools.partial(self._batch, self._order(epoch))
        numbers = range(start, len(self))
        if self.prefetch:
            return _read_ahead(read, numbers, self.prefetch)
        return (read(number) for number in numbers)

    def validation(self) -> Self | None:
        """Returns a loader over the examples held out, in their own order, or None."""
        if self._held_out is None:
            return None
        other = copy.copy(self)
        other._indices, other._held_out = self._held_out, None
        other.examples, other.shuffle = len(self._held_out), False
        return other

    @property
    def _name(self):
        return f"{type(self).__name__}({type(self.dataset).__name__})"

    def _order(self, epoch):
        """The examples of an epoch, (batches, batch_size), filled up from its own beginning."""
        indices = self._indices
        if self.shuffle:
            indices = self._generator(epoch).permutation(indices)
        missing = len(self) * self.batch_size - len(indices)
        return np.append(indices, np.resize(indices, missing)).reshape(len(self), self.batch_size)

    def _batch(self, order, number):
        index, count = self.shard
        rows = slice(*(part * self.batch_size // count for part in (index, index + 1)))
        batch = self.read(order[number, rows])
        if not (isinstance(batch, dict) and {"inputs", "targets"} <= batch.keys()):
            came = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
            raise UserError(
                f"{self._name}: a batch came as {came}; expected a dict with the keys 'inputs' "
                "and 'targets' (and 'weight', if it likes). Mend `collate` or `read`."
            )
        position = np.arange(number * self.batch_size, (number + 1) * self.batch_size)
        real = (position[rows] < self.examples).astype(np.float32)
        return {**batch, "weight": self._weigh(batch.get("weight"), real)}

    def _weigh(self, weight, real):
        if weight is None:
            return real
        weight = np.asarray(weight, np.float32)
        if weight.shape[:1] != real.shape:
            raise UserError(
                f"{self._name}: the weight of a batch has shape {weight.shape}; expected "
                f"({len(real)},) or ({len(real)}, ...): one per example, or more."
            )
        return weight * real.reshape((-1,) + (1,) * (weight.ndim - 1))

    def _length(self):
        if isinstance(self.dataset, type):
            raise UserError(
                f"{type(self).__name__}: dataset is the class {self.dataset.__name__}; expected a "
                'data set. Give its arguments, and it is made: {"name": ..., "args": {}}'
            )
        if not hasattr(self.dataset, "__len__"):
            raise UserError(
                f"{self._name}: the data set has no length; expected `__len__`, which returns the "
                "number of examples, beside `__getitem__`"
            )
        return len(self.dataset)

    def _split(self, examples, share):
        """Parts the indices into those to read and those held out (None where there are none)."""
        fraction = isinstance(share, float) and 0 <= share < 1
        count = round(share * examples) if fraction else share
        if not _is_whole(count) or not 0 <= count < max(examples, 1) or (share and not count):
            raise UserError(
                f"{self._name}: validation_split is {share!r}; expected 0, a fraction between 0 "
                f"and 1 or a whole number of examples, that leaves at least one of the {examples} "
                "examples on either side."
            )
        if not count:
            return np.arange(examples), None
        order = self._generator(SPLIT_EPOCH).permutation(examples)
        return np.sort(order[count:]), np.sort(order[:count])

    def _generator(self, epoch):
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch]))

    def _whole_number(self, name, value, least):
        if not _is_whole(value) or not least <= value < 2**63:
            raise UserError(
                f"{self._name}: {name} is {value!r}; "
                f"expected a whole number of at least {least} (and below 2**63)."
            )
        return value


def collate(samples: list) -> dict[str, Any]:
    """Stacks samples into a batch.

    Args:
        samples: list of (input, target); an input or a target is a number, an array, or a dict of
            those, and has one shape throughout.

    Returns:
        {"inputs": (batch, ...), "targets": (batch, ...)}

    Raises:
        UserError: the shapes differ.
    """
    if not (isinstance(samples[0], tuple | list) and len(samples[0]) == 2):
        came = type(samples[0]).__name__
        came += f" of {len(samples[0])}" if isinstance(samples[0], tuple | list) else ""
        raise UserError(
            f"collate: a sample is {came}; expected (input, target). Mend `__getitem__` of the "
            "data set, or name a `collate` that makes a batch of what it returns"
        )
    inputs, targets = zip(*samples, strict=True)
    return {"inputs": _stack("inputs", inputs), "targets": _stack("targets", targets)}


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _stack(name, values):
    if isinstance(values[0], dict):
        return {key: _stack(f"{name}.{key}", [value[key] for value in values]) for key in values[0]}
    arrays = [np.asarray(value) for value in values]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise UserError(
            f"collate: the {name} of a batch have the shapes {shapes[0]} and {shapes[1]}; expected "
            "one. Bring them to one size in the data set, or name a `collate` that pads them."
        )
    return np.stack(arrays)


def _read_ahead(read, numbers, count):
    """Yields read(number) in order; one thread stays up to `count` ahead and ends with the loop."""
    numbers = iter(numbers)
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        waiting = deque(pool.submit(read, number) for number in islice(numbers, count))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(pool.submit(read, number) for number in islice(numbers, 1))
            yield batch
    finally:  # also when the loop around us is left early
        pool.shutdown(cancel_futures=True)
