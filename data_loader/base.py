"""The base class of every loader: which examples are in which batch, and in which order.

A batch is a dict of NumPy arrays: "inputs", (batch, ...) or a dict of such; "targets",
(batch, ...); "weight", (batch,) float32. The last batch of an epoch is padded with real examples of
weight 0, so that every batch has one shape and nothing recompiles.

The order of an epoch is a pure function of (seed, epoch). Two integers are enough to resume: the
epoch, and the number of batches already done. Shuffling or a sampler orders a pass; an epoch is one
pass, or with `examples_per_epoch` the next so many examples of one pass after the other.
"""

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np

from data_loader.folds import check_folds, fold_numbers, read_groups
from data_loader.labels import (
    ClassNumbers,
    as_numbers,
    labels_in_memory,
    names_of_classes,
    refuse_labels,
    without_ignored,
)
from data_loader.sampling import make_sampler, read_labels
from data_loader.stratify import classes_in_proportion, labels_of
from data_loader.streams import Stream, as_rows, is_stream, reads_batches, stream_batches
from data_loader.workers import read_ahead
from utils import UserError

NUMBERS = "biufcV"  # kinds of dtypes that JAX takes; V: bfloat16 and its like
SPLIT_EPOCH = 0  # epochs count from 1, so the shuffle of epoch 0 is free for the split


class BaseDataLoader:
    """Divides a data set into batches; a subclass defines how a batch is read.

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
        seed: whole number that determines the orders and the split.
        validation_split: fraction (0.1) or number (5000) of the examples to hold out.
        prefetch: batches that a background thread reads ahead; 0 reads in the foreground. None
            means 0 for a data set with `__getitems__`, whose reading is cheaper than a thread,
            and 2 otherwise.
        sampler: "balanced", weights, or a function, see `data_loader.samplers`; in place of
            `shuffle`.
        examples_per_epoch: length of an epoch, shorter or longer than the data set; None for one
            pass over it.
        drop_last: whether to leave out the last batch of an epoch where it would be padded.
        shuffle_window: records of a stream (see `data_loader.streams`) that are shuffled together.
        stratify: whether to hold out the same share of every class, where the data set has
            `labels`, (examples,) integers or texts. A class of a single example is kept.
        fold, folds: hold out part `fold` (from 0) of `folds` equal parts, in place of
            `validation_split`. Of the same data and seed, each example is in one fold.
        groups: what of the data set stays together in a fold: the name of an attribute of it with
            a value for each example ("patients"), or a list of such values.

    Attributes:
        examples: number of examples in an epoch, without those held out.
        batch_size: as above, over all processes.
        shard: (index, count): this loader reads part `index` of `count` equal parts of each batch.
    """

    shard = (0, 1)
    _held_out_count = 0
    _fold: Any = None  # (fold, folds, groups)
    _begun: tuple[int | None, int, int] = (None, 0, 0)  # see continue_epoch
    class_count: int | None = None  # see expect_classes
    split = "train"  # of the data, for messages
    in_memory: np.ndarray | None = None  # targets of all examples, where the data are cached
    numbers: ClassNumbers | None = None  # of labels that are no classes yet

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        validation_split: float = 0,
        prefetch: int | None = None,
        sampler: str | Sequence[float] | Callable[..., np.ndarray] | None = None,
        examples_per_epoch: int | None = None,
        drop_last: bool = False,
        shuffle_window: int = 1000,
        stratify: bool = True,
        fold: int | None = None,
        folds: int | None = None,
        groups: str | Sequence[int | str] | None = None,
    ) -> None:
        if prefetch is None:
            prefetch = 0 if reads_batches(dataset) else 2
        self.dataset, self.shuffle = dataset, shuffle
        self.batch_size = self._whole_number("batch_size", batch_size, 1)
        self.seed = self._whole_number("seed", seed, 0)
        self.prefetch = self._whole_number("prefetch", prefetch, 0)
        if examples_per_epoch is not None:
            self._whole_number("examples_per_epoch", examples_per_epoch, 1)
        if not isinstance(drop_last, bool):
            raise UserError(f"{self._name}: drop_last is {drop_last!r}; expected true or false.")
        self._sampler: Any = None
        self.stream: Any = None
        self._pass_length: Any = None
        self._drawn: Any = None  # the order drawn last, behind all that it depends on
        if is_stream(dataset):
            self._whole_number("shuffle_window", shuffle_window, 1)
            folded = fold is not None or folds is not None
            split = "folds" if folded else "validation_split" if validation_split else None
            self._open_stream(sampler, split, shuffle_window, examples_per_epoch)
        else:
            given = (fold, folds, groups)
            self._fold = check_folds(*given, self._length(), validation_split, self._name)
            self._held_out_count = self._count_held_out(self._length(), validation_split)
            self.hold_out(stratify)
            if sampler is not None and len(self._indices):
                self._sampler = make_sampler(sampler, dataset, self._indices, self.seed, self._name)
            self._pass_length = len(self._pass(1)) if self._sampler else len(self._indices)
        self.per_epoch: Any = examples_per_epoch or self._pass_length
        self.examples: Any = self.per_epoch
        whole = drop_last if self.stream else self.examples != len(self._indices)
        # Whether an epoch is all examples, each once, as an evaluation must be.
        self.reads_everything = self._sampler is None and not whole
        if self.examples is None:
            return
        if self.batch_size > self.examples:
            without = f", {self._held_out_count} being held out for validation"
            raise UserError(
                f"{self._name}: batch_size is {self.batch_size}, but there are only "
                f"{self.examples} examples to read{without * bool(self._held_out_count)}; expected "
                "at most as many. Lower batch_size or bring more data."
            )
        if drop_last and self.examples % self.batch_size:
            self.examples -= self.examples % self.batch_size
            self.reads_everything = False

    def read(self, indices: np.ndarray) -> dict[str, Any]:
        """Reads the examples `indices`, (batch,) int64, as {"inputs": ..., "targets": ...}.

        The batch may contain its own "weight", (batch,) or (batch, positions).
        """
        raise NotImplementedError(f"{self._name}: a loader needs read(self, indices)")

    def read_examples(self, indices: np.ndarray) -> dict[str, Any]:
        """Returns the examples `indices`, (batch,) int64, as a batch in which each counts."""
        return self._weighted_batch(indices, np.ones(len(indices), np.float32))

    def __len__(self) -> int:
        """Returns the number of batches in an epoch; the last one may be padded."""
        if self.examples is None:
            raise UserError(
                f"{self._name}: the data set is a stream without a length; say how many examples "
                "are an epoch, with examples_per_epoch, or give it `__len__`"
            )
        return -(-self.examples // self.batch_size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[dict[str, Any]]:
        """Iterates over the batches `start`, `start + 1`, ... of an epoch.

        Args:
            epoch: number of the epoch, from 1.
            start: number of batches to skip at the beginning, for resuming.
        """
        if self.stream:
            return stream_batches(self, epoch, start)
        if epoch == self._begun[0]:
            _, batches, examples = self._begun
            if examples >= self.examples:
                return (batch for batch in ())
            return self._rest(epoch, examples).batches(epoch, start - batches)
        read = functools.partial(self._batch, self._order(epoch))
        numbers = range(start, len(self))
        if self.prefetch:
            return read_ahead(read, numbers, self.prefetch)
        return (read(number) for number in numbers)

    @property
    def classes(self) -> Any:
        """The names of the classes, or None."""
        return self.numbers.names if self.numbers else names_of_classes(self.dataset)

    def expect_classes(self, count: int) -> None:
        """From now on refuses targets other than 0, 1, ..., count - 1.

        Those in memory are looked at now; of others, unless they are a stream, the first batch.
        """
        self.class_count = count
        if self.stream:
            return
        targets = labels_in_memory(self, self._indices)
        if targets is None:
            self._batch(self._order(1), 0)
        else:
            self._checked(targets, self._indices)

    def batch_indices(self, epoch: int, number: int) -> np.ndarray | None:
        """Returns which examples a batch has, (batch_size,) of all processes; None of a stream."""
        if self.stream:
            return None
        if epoch == self._begun[0]:
            _, batches, examples = self._begun
            return self._rest(epoch, examples).batch_indices(epoch, number - batches)
        return self._order(epoch)[number]

    def known_labels(self) -> np.ndarray | None:
        """Returns the `labels` of the loader's examples, or None where the data set has none."""
        labels = None if self.stream else labels_of(self.dataset)
        return None if labels is None else labels[self._indices]

    def validation(self) -> Self | None:
        """Returns a loader over the examples held out, never shuffled, or None."""
        return None if self._held_out is None else self.only(self._held_out)

    def only(self, indices: np.ndarray) -> Self:
        """Returns a loader over some examples of the data set, in their order, never shuffled."""
        loader = copy.copy(self)
        loader._indices, loader._held_out = indices, None
        loader.shuffle, loader._sampler, loader.reads_everything = False, None, True
        loader.examples = loader.per_epoch = loader._pass_length = len(indices)
        return loader

    @property
    def indices(self) -> np.ndarray:
        """The examples' indices in the data set, without those held out; none for a stream."""
        return self._indices

    def labels(self) -> np.ndarray:
        """Returns the targets of the examples, without those held out, in the data set's order."""
        if self.stream:
            raise UserError(f"{self._name}: the labels of a stream are not known beforehand")
        labels = read_labels(self.dataset)[self._indices]
        return self.numbers(labels, self._indices) if self.numbers else labels

    def continue_epoch(self, epoch: int, batches: int, examples: int) -> Self:
        """Returns a loader for an epoch that was begun with batches of another size.

        Args:
            epoch: the epoch; all later ones are as ever.
            batches: how many batches of it are done.
            examples: how many examples were in them.
        """
        loader = copy.copy(self)
        loader._begun = (epoch, batches, examples)
        return loader

    def batches_in(self, epoch: int) -> int:
        """Returns the number of batches in an epoch, which `continue_epoch` may have changed."""
        begun, batches, examples = self._begun
        left = -(-(self.examples - examples) // self.batch_size)
        return len(self) if epoch != begun else batches + left

    def done(self, epoch: int, batch: int) -> int:
        """Returns the number of examples of an epoch before one of its batches."""
        _, batches, examples = self._begun if self._begun[0] == epoch else (epoch, 0, 0)
        return examples + (batch - batches) * self.batch_size

    def _rest(self, epoch, done):
        """Returns a loader over what is left of an epoch behind its first examples."""
        loader = copy.copy(self)
        loader._begun = BaseDataLoader._begun
        loader._indices = self._order(epoch).ravel()[done : self.examples]
        loader.shuffle, loader._sampler = False, None
        loader.examples = loader.per_epoch = loader._pass_length = len(loader._indices)
        return loader

    @property
    def _name(self):
        return f"{type(self).__name__}({type(self.dataset).__name__})"

    def _order(self, epoch):
        """Returns an epoch's indices, (batches, batch_size), padded from the epoch's beginning."""
        key = (epoch, self.seed, self.shuffle, self.per_epoch, self.examples, self.batch_size)
        drawn = self._drawn
        if drawn and drawn[0] == key and drawn[1] is self._indices and drawn[2] is self._sampler:
            return drawn[3]
        self._drawn = None  # of many examples two at once would be large
        first, length = (epoch - 1) * self.per_epoch, self._pass_length
        passes = range(first // length, (first + self.per_epoch - 1) // length + 1)
        parts = [self._pass(number + 1) for number in passes]
        indices = parts[0] if len(parts) == 1 else np.concatenate(parts)
        indices = indices[first % length :][: self.examples]
        missing = len(self) * self.batch_size - len(indices)
        if missing:
            indices = np.append(indices, np.resize(indices, missing))
        order = indices.reshape(len(self), self.batch_size)
        self._drawn = key, self._indices, self._sampler, order
        return order

    def order(self, epoch: int) -> np.ndarray | None:
        """Returns the indices of an epoch's examples as they are read, also those of its padding.

        None for a stream.
        """
        return None if self.stream else self._order(epoch).ravel()

    def _pass(self, number):
        """Returns the indices of a pass, from 1: a sampler's, or all, shuffled or in order."""
        if self._sampler:
            return self._sampler(number)
        return self._generator(number).permutation(self._indices) if self.shuffle else self._indices

    def _batch(self, order, number):
        index, count = self.shard
        rows = slice(*(part * self.batch_size // count for part in (index, index + 1)))
        position = np.arange(number * self.batch_size, (number + 1) * self.batch_size)
        real = (position[rows] < self.examples).astype(np.float32)
        # A data set may compute with an index, so it is one of 64 bits.
        return self._weighted_batch(order[number, rows].astype(np.int64), real)

    def batch_of_records(self, records: list) -> dict[str, Any]:
        """Returns the batch of at most `batch_size` records of a stream: this loader's part."""
        index, count = self.shard
        rows = slice(*(part * self.batch_size // count for part in (index, index + 1)))
        filled = records + records[:1] * (self.batch_size - len(records))
        real = (np.arange(self.batch_size) < len(records)).astype(np.float32)
        return self._weighted_batch(as_rows(filled[rows]), real[rows])

    def position(self, epoch: int, batch: int) -> list | None:
        """Returns what a checkpoint has to hold for `restore`, after a batch of an epoch."""
        if self.stream is None:
            return None
        return self.stream.position((epoch - 1) * self.per_epoch + self.done(epoch, batch))

    def restore(self, position: list | None) -> None:
        """Takes over the position of a checkpoint; without, a stream is read from its beginning."""
        if self.stream and position is not None:
            self.stream.restore(position)

    def _weighted_batch(self, rows, real):
        """Returns the batch of some indices, or records; the weight is 0 where `real` is."""
        batch = self.read(rows)
        is_dict = isinstance(batch, dict)
        if not (is_dict and {"inputs", "targets"} <= batch.keys()):
            got = f"has the keys {sorted(batch)}" if is_dict else f"is a {type(batch).__name__}"
            raise UserError(
                f"{self._name}: a batch {got}; expected a dict with the keys 'inputs' "
                "and 'targets' (and optionally 'weight'). Fix `collate` or `read`."
            )
        weight = self._combine_weights(batch.get("weight"), real)
        targets = self._checked(batch["targets"], self._examples(rows), batch.get("weight"))
        return {**batch, "targets": targets, "weight": weight}

    def _examples(self, rows):
        """What messages call the examples of a batch: their indices, or places in the batch."""
        return np.arange(len(rows)) if self.stream else rows

    def _checked(self, targets, indices, weight=None):
        """Returns targets that are numbers and, where labels are expected, classes.

        Args:
            targets: (batch, ...), or a tree of such.
            indices: (batch,) of their examples in the data set.
            weight: (batch, ...); where it is 0, the target may be anything.
        """
        if type(targets) is not np.ndarray or targets.dtype.kind not in NUMBERS:
            targets = as_numbers(targets, indices, self.split)
        if weight is not None:
            targets = without_ignored(targets, np.asarray(weight))
        if not isinstance(targets, np.ndarray):
            return targets
        if targets.shape[:1] != indices.shape:
            raise UserError(
                f"{self._name}: the targets of a batch have shape {targets.shape}; expected "
                f"({len(indices)}, ...): one for each example."
            )
        count = self.class_count
        if count is not None and targets.size and not are_classes(targets, count):
            refuse_labels(targets, indices, count, self.split)
        return targets

    def _combine_weights(self, weight, real):
        """Returns the batch's own weight, (batch, ...), set to 0 where an example is padding."""
        if weight is None:
            return real
        weight = np.asarray(weight, np.float32)
        if weight.shape[:1] != real.shape:
            raise UserError(
                f"{self._name}: the weight of a batch has shape {weight.shape}; expected "
                f"({len(real)},) or ({len(real)}, ...): one or more per example."
            )
        if not (weight >= 0).all():
            raise UserError(
                f"{self._name}: a weight of a batch is {weight[~(weight >= 0)][0]}; expected 0 for "
                "what is left out, or a positive number."
            )
        return weight * real.reshape((-1,) + (1,) * (weight.ndim - 1))

    def _open_stream(self, sampler, split, shuffle_window, examples_per_epoch):
        if sampler is not None or split:
            name = "sampler" if sampler is not None else split
            raise UserError(
                f"{self._name}: {name} needs a data set that is read by index, but this is a "
                "stream; validation data of their own are data_loader.validation"
            )
        window = shuffle_window if self.shuffle else self.batch_size
        counted = examples_per_epoch is None and hasattr(self.dataset, "__len__")
        length = len(self.dataset) if counted else None  # it may take long to count
        self.stream = Stream(self.dataset, self.shuffle, self.seed, window, length, self._name)
        self._indices, self._held_out = np.arange(0), None
        self._pass_length = self.stream.length

    def _length(self):
        if isinstance(self.dataset, type):
            raise UserError(
                f"{type(self).__name__}: dataset is the class {self.dataset.__name__}; expected a "
                'data set. Give its arguments, so that it is created: {"name": ..., "args": {}}'
            )
        if not hasattr(self.dataset, "__len__"):
            raise UserError(
                f"{self._name}: the data set has no length; expected `__len__`, which returns the "
                "number of examples, beside `__getitem__`; or `__iter__` for a stream"
            )
        return len(self.dataset)

    def hold_out(self, stratify: bool) -> None:
        """Chooses the examples for validation by the seed: of each class its share, or of all."""
        count = self._held_out_count
        examples = 0 if self.stream else len(self.dataset)
        self._indices, self._held_out = _numbers(examples), None
        if not count and not self._fold:
            return
        order = self._generator(SPLIT_EPOCH).permutation(examples)
        labels = labels_of(self.dataset) if stratify else None
        if self._fold:
            fold, folds, groups = self._fold
            together = read_groups(groups, self.dataset, self._name)
            numbers = fold_numbers(order, folds, labels, together)
            self._divide(held_out := numbers == fold)
            self._held_out_count = int(held_out.sum())
            return
        if labels is not None:
            order = classes_in_proportion(order, labels, count)
        held_out = np.zeros(examples, bool)
        held_out[order[:count]] = True
        self._divide(held_out)

    def _divide(self, held_out):
        """Holds out the examples where (examples,) `held_out` is true."""
        self._indices, self._held_out = self._indices[~held_out], self._indices[held_out]

    def _count_held_out(self, examples, wanted):
        """Returns the number of examples for validation."""
        is_fraction = isinstance(wanted, float) and 0 <= wanted < 1
        count = round(wanted * examples) if is_fraction else wanted
        if not _is_whole(count) or not 0 <= count < max(examples, 1) or (wanted and not count):
            raise UserError(
                f"{self._name}: validation_split is {wanted!r}; expected 0, a fraction between 0 "
                f"and 1 or a whole number of examples, that leaves at least one of the {examples} "
                "examples on either side."
            )
        return count

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
            those, and has the same shape in every sample.

    Returns:
        {"inputs": (batch, ...), "targets": (batch, ...)}

    Raises:
        UserError: the shapes differ.
    """
    if not (isinstance(samples[0], tuple | list) and len(samples[0]) == 2):
        got = type(samples[0]).__name__
        got += f" of {len(samples[0])}" if isinstance(samples[0], tuple | list) else ""
        raise UserError(
            f"collate: a sample is {got}; expected (input, target). Fix `__getitem__` of the "
            "data set, or name a `collate` that makes a batch of what it returns"
        )
    inputs, targets = zip(*samples, strict=True)
    return {"inputs": _stack("inputs", inputs), "targets": _stack("targets", targets)}


def are_classes(targets: np.ndarray, count: int) -> bool:
    """Whether targets, of which there are some, are whole numbers from 0 to count - 1."""
    return targets.dtype.kind in "biu" and 0 <= targets.min() <= targets.max() < count


def _numbers(examples):
    """Returns 0, 1, ..., examples - 1, in 32 bits if they have room."""
    return np.arange(examples, dtype=np.int32 if examples <= 2**31 else np.int64)


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _stack(name, values):
    if isinstance(values[0], dict):
        return {key: _stack(f"{name}.{key}", [value[key] for value in values]) for key in values[0]}
    if any(isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value) for value in values):
        raise UserError(
            f"collate: the {name} of an example are masked; expected numbers. Leave the example "
            "out, or name a `collate` that gives it the weight 0."
        )
    arrays = [np.asarray(value) for value in values]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise UserError(
            f"collate: the {name} of a batch have the shapes {shapes[0]} and {shapes[1]}; expected "
            "one. Resize them in the data set, or name a `collate` that pads them."
        )
    return np.stack(arrays)
