"""Labels: what is no class is refused, with its example; values of any kind are numbered."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from utils import UserError, nearest

COMPARED = 8  # examples read to see whether labels in memory are their targets
SHOWN = 5  # values that a message lists


class ClassNumbers:
    """Numbers the values of labels: the first one is class 0, the next class 1, and so on.

    Args:
        classes: the values in the order of their classes, texts or whole numbers; or a dict from
            value to name. In a dict from a config, whose keys are texts, "3" stands for 3 as well.

    Attributes:
        names: of the classes.

    Raises:
        UserError: a value is there twice, or is neither text nor a whole number.
    """

    def __init__(self, classes: Sequence[str | int] | Mapping[str, str]) -> None:
        if isinstance(classes, str) or not isinstance(classes, Sequence | Mapping) or not classes:
            raise UserError(
                f"DataLoader: classes is {classes!r}; expected a list of the labels' values in the "
                'order of their classes, such as ["cat", "dog"] or [1, 2, 3], or {"1": "cat", ...}'
            )
        names = classes.values() if isinstance(classes, Mapping) else classes
        self.names, self._values = [str(one) for one in names], list(classes)
        self._numbers: dict[Any, int] = {}
        for number, value in enumerate(self._values):
            if type(value) not in (str, int) or str(value) in self._numbers:
                raise UserError(
                    f"DataLoader: classes has {value!r}; expected texts or whole numbers, each once"
                )
            self._numbers[str(value)] = number
            with contextlib.suppress(ValueError):  # in JSON the keys of a dict are texts
                self._numbers.setdefault(int(value), number)

    def __call__(
        self, targets: np.ndarray, indices: np.ndarray, weight: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns the classes of a batch of labels, int32 of their shape.

        Args:
            targets: (batch, ...) texts or numbers.
            indices: (batch,) of the examples in the data set, for messages.
            weight: (batch, ...); where it is 0, a label may be anything.
        """
        values = (targets := np.asarray(targets)).ravel().tolist()
        numbers = np.array([self._number(one) for one in values], np.int32).reshape(targets.shape)
        if weight is not None:
            numbers = without_ignored(numbers, np.asarray(weight))
        if (numbers < 0).any():
            wrong = int(np.flatnonzero(numbers < 0)[0])
            example = indices[wrong * len(indices) // len(values)]
            raise UserError(
                f"example {example} has the label {values[wrong]!r}, which is none of the loader's "
                f"`classes`: {_shown(self._values)}{nearest(values[wrong], self._values)}"
            )
        return numbers

    def _number(self, value):
        try:
            text = value.decode(errors="replace") if isinstance(value, bytes) else value
            return self._numbers.get(text, -1)
        except TypeError:  # of a list or the like, which is no key
            return -1


def _shown(values):
    return ", ".join(map(repr, values[:SHOWN])) + ", ..." * (len(values) > SHOWN)


def without_ignored(targets: Any, weight: np.ndarray) -> Any:
    """Returns targets with 0 where their weight is 0.

    They count for nothing then, whatever they are: -100 is no class, and NaN times 0 is NaN.

    Args:
        targets: (batch, ...), or a dict of such.
        weight: (batch, ...) of fewer axes or as many.
    """
    if isinstance(targets, dict):
        return {key: without_ignored(one, weight) for key, one in targets.items()}
    if not isinstance(targets, np.ndarray) or targets.shape[: weight.ndim] != weight.shape:
        return targets
    counts = weight.reshape(weight.shape + (1,) * (targets.ndim - weight.ndim)) != 0
    return targets if counts.all() else np.where(counts, targets, targets.dtype.type(0))


def as_numbers(targets: Any, indices: np.ndarray, split: str) -> Any:
    """Returns targets as an array of numbers, trees as they are; refuses masks, texts and objects.

    Args:
        targets: (batch, ...) array or list, or a tree of targets.
        indices: (batch,) of their examples in the data set.
        split: of the data, for the message.
    """
    is_list = isinstance(targets, list) and all(np.isscalar(one) for one in targets)
    if not is_list and not (hasattr(targets, "__array__") and hasattr(targets, "dtype")):
        return targets
    if isinstance(targets, np.ma.MaskedArray) and np.ma.is_masked(targets):
        masked = np.argwhere(np.ma.getmaskarray(targets))[0]
        raise UserError(
            f"{_data(split)}: the target of example {indices[masked[0]]} is masked; expected a "
            "number. Leave the example out, or let `collate` give it the weight 0"
        )
    targets = np.asarray(targets)
    if targets.dtype.kind not in "OSUmM":
        return targets
    rows = targets.reshape(len(indices), -1).tolist() if targets.size else []
    # An array holds numbers beside a text as texts, too: the example to name is the odd one.
    odd = [i for i, row in enumerate(rows) if not all(map(_could_be_a_number, row))]
    at = next(iter(odd + [i for i, row in enumerate(rows) if not _are_numbers(row)]), 0)
    row = rows[at] if rows else []
    texts = sorted({one for row in rows for one in row if isinstance(one, str)})
    way_out = " or name a `collate` that makes numbers of them"
    if texts:
        way_out = f" or give the loader `classes`, the texts in their order: [{_shown(texts)}]"
    raise UserError(
        f"{_data(split)}: targets of a batch are {targets.dtype}; expected numbers. Example "
        f"{indices[at]} has {_shown(row)}. Let the data set return numbers,{way_out}"
    )


def _could_be_a_number(value):
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def refuse_labels(targets: np.ndarray, indices: np.ndarray, count: int, split: str) -> None:
    """Raises for labels of which one is none of the classes 0, 1, ..., count - 1.

    Args:
        targets: (batch, ...) labels.
        indices: (batch,) of their examples in the data set.
        count: number of classes, which is that of the network's outputs.
        split: of the data, for the message.
    """
    whole, right = targets.dtype.kind in "biu", np.zeros(targets.shape, bool)
    if targets.dtype.kind in "biuf":
        right = (targets >= 0) & (targets < count) & (targets == np.floor(targets))
    wrong = np.argwhere(~right)[0] if not right.all() else [0] * targets.ndim
    at = "".join(f", position {index}" for index in wrong[1:])
    raise UserError(
        f"{_data(split)}: example {indices[wrong[0]]}{at} has the label {targets[tuple(wrong)]} "
        f"({targets.dtype}), expected a whole number from 0 to {count - 1}: a class, as the "
        f"network has {count} outputs. {_way_out(targets, count, whole)}"
    )


def labels_in_memory(loader: Any, indices: np.ndarray) -> np.ndarray | None:
    """Returns the targets of a loader's examples where they need not be read, else None.

    They are those of data cached on the device, or the `labels` of a data set, if the targets of
    the first examples say that these are what it returns.
    """
    if loader.in_memory is not None:
        return loader.in_memory[indices]
    labels = getattr(loader.dataset, "labels", None)
    if not isinstance(labels, np.ndarray) or len(labels) != len(loader.dataset):
        return None
    batch, few = loader.read(indices[:COMPARED]), indices[:COMPARED]
    number = loader.numbers or (lambda labels, indices: labels)
    try:
        same = np.array_equal(batch["targets"], number(labels[few], few))
    except UserError:  # the labels have other values than the targets
        return None
    return number(labels[indices], indices) if same and "weight" not in batch else None


def names_of_classes(dataset: Any) -> Sequence | None:
    """Returns the names of a data set's classes, its `classes`, or None where it has none.

    Where that is their number, they are called "0", "1", ...

    Raises:
        UserError: it is neither names in an order nor a number.
    """
    found = getattr(dataset, "classes", None)
    if found is None or isinstance(found, list | tuple):
        return found
    if isinstance(found, np.ndarray) and found.ndim == 1:
        return found.tolist()
    if isinstance(found, int | np.integer) and found > 0 and not isinstance(found, bool):
        return [str(index) for index in range(found)]
    raise UserError(
        f"the data set {type(dataset).__name__}: its attribute `classes` is {found!r:.80}; "
        "expected the names of the classes in the order of the labels, a list, or their number"
    )


def _data(split):
    return "the training data" if split == "train" else f"the {split} split"


def _are_numbers(values):
    return all(isinstance(one, int | float | complex | np.number) for one in values)


def _way_out(targets, count, whole):
    if not whole:
        return "Let the data set return whole numbers: targets.astype(numpy.int32)"
    if targets.min() < 0:
        return (
            "What is to be ignored gets the weight 0, whatever its label: let `collate` return "
            "the batch's `weight`"
        )
    return (
        "Count classes from 0, and give the network an output for each (model.args.classes). "
        "Labels that count from 1 or leave numbers out are numbered by the loader's argument "
        "`classes`: [1, 2, ...]"
    )
