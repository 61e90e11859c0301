"""Data sets of the library `datasets` of Hugging Face: from the disk, or from the Hub by name.

They are read from files of Arrow row by row, so they may be larger than memory. Names of the
columns are in the config; pictures are read as in a folder of images, by the workers.
"""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_loader.images import read_image
from data_loader.unchanged import check_unchanged, state_of
from utils import UserError, nearest, optional_library

DATASETS = "datasets==5.2.0"
CHECKED_EVERY = 64  # rows of a stream; a data set may have hundreds of files
INT32 = np.iinfo(np.int32)


class _Columns:
    """What both classes have in common: loading, the columns, and an example of a row."""

    def __init__(self, name, inputs, targets, split, subset, size, mode, streaming):
        self.name, self._inputs, self._targets = name, inputs, targets
        self._size: Any = None if size is None else (size[0], size[1])
        self._mode = mode
        library = optional_library("datasets", DATASETS, "a data set of Hugging Face")
        dataset, files = _load(library, name, split, subset, streaming)
        features = dataset.features or {}
        if not features:
            raise UserError(f"{name}: says nothing of its columns; load it without streaming")
        self._names = [*inputs.values()] if isinstance(inputs, Mapping) else [inputs]
        for column in [*self._names, targets]:
            if column not in features:
                hint = nearest(column, features)
                listed = ", ".join(features)
                raise UserError(f"{name}: no column {column!r}{hint}; there are {listed}")
            if isinstance(features[column], library.Image):
                if self._size is None:
                    raise UserError(f"{name}: column {column!r} are images; give their `size`")
                dataset = dataset.cast_column(column, library.Image(decode=False))
        self.features = {column: features[column] for column in [*self._names, targets]}
        self.images = [
            column for column, one in self.features.items() if isinstance(one, library.Image)
        ]
        self.dataset = dataset.select_columns([*dict.fromkeys([*self._names, targets])])
        self._states = {path: state_of(path) for path in files}
        if isinstance(features[targets], library.ClassLabel):
            self.classes = list(features[targets].names)

    def check_files(self):
        """Refuses files that were changed; they are mapped, and one that is cut ends a process."""
        for path, state in self._states.items():
            check_unchanged(path, state)

    def sample(self, row, where):
        """Returns the inputs and the target of a row, {column: value}."""
        values = {
            name: self._value(row[name], f"{where}, column {name!r}")
            for name in [*self._names, self._targets]
        }
        if isinstance(self._inputs, Mapping):
            inputs = {key: values[name] for key, name in self._inputs.items()}
        else:
            inputs = values[self._inputs]
        return inputs, values[self._targets]

    def _value(self, value, where):
        """Returns a cell as an array of numbers."""
        if value is None:
            raise UserError(f"{where}: missing; expected a value in every row")
        if isinstance(value, Mapping) and {"bytes", "path"} <= value.keys():
            file = value["path"] if value["bytes"] is None else io.BytesIO(value["bytes"])
            try:
                return read_image(file, self._size, self._mode)
            except UserError as error:
                raise UserError(f"{where}: {error}") from error
        if isinstance(value, str) and where.endswith(f"column {self._targets!r}"):
            return self._label(value, where)
        try:
            array = np.asarray(value)
        except ValueError:  # lists of different lengths
            array = np.asarray(None)
        return _as_numbers(array, where)

    def _label(self, value, where):
        """Returns the class of a text."""
        classes = getattr(self, "classes", [])
        if value not in classes:
            listed = ", ".join(map(repr, classes[:10])) or "none: name the `classes`"
            hint = nearest(value, classes)
            raise UserError(f"{where}: {value!r}; expected one of the classes, {listed}{hint}")
        return np.int32(classes.index(value))


class HuggingFace(_Columns):
    """A data set of `datasets`, read by index.

        {"name": "HuggingFace", "args": {
            "name": "data/beans", "split": "train", "inputs": "image", "targets": "labels",
            "size": [64, 64]}}

    Args:
        name: folder that `save_to_disk` wrote, or the data set's name on the Hub.
        inputs: name of a column; or a dict of such, for a network with several inputs.
        targets: name of the column to predict: numbers, class labels, or text, which is a class.
        split: "train", "test", ...; None where the folder holds a single one.
        subset: of the data set on the Hub; None for its own.
        size: [height, width] of images, see `data_loader.images.read_image`.
        mode: "L" for grey images, "RGB" for colour.
        classes: the classes of a target that is text, in the order of their labels; None for those
            of the training data, sorted.
        fitted: those classes; the test set is given that of the training set.

    Attributes:
        classes: names of the classes, where the target is one.

    Raises:
        UserError: it cannot be loaded, has no such column, or a cell is no number or image.
    """

    def __init__(
        self,
        name: str,
        inputs: str | Mapping[str, str],
        targets: str,
        split: str | None = None,
        subset: str | None = None,
        size: Sequence[int] | None = None,
        mode: str = "RGB",
        classes: Sequence[str] | None = None,
        fitted: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name, inputs, targets, split, subset, size, mode, streaming=False)
        if getattr(self.features[targets], "dtype", None) in ("string", "large_string"):
            known = classes or (fitted or {}).get("classes") or self._values_of(targets)
            self.classes = [str(one) for one in known]
            self.fitted = {"classes": self.classes}
        elif not self.images and not self._has_holes():  # else it is read row by row
            self._arrays = self.dataset.with_format("numpy")
            self.__getitems__ = self._batch

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Returns the inputs and the target of a row."""
        self.check_files()
        return self.sample(self.dataset[int(index)], f"{self.name}, row {index}")

    def checksum(self) -> str:
        """Returns the fingerprint of the data set, by which `datasets` knows it."""
        return str(self.dataset._fingerprint)

    def _batch(self, indices):
        """Returns the inputs and the targets at `indices`; stands for `__getitems__`."""
        self.check_files()
        rows = self._arrays[np.asarray(indices)]
        arrays = {
            name: _as_numbers(rows[name], f"{self.name}, column {name!r}", indices)
            for name in [*self._names, self._targets]
        }
        if isinstance(self._inputs, Mapping):
            inputs = {key: arrays[name] for key, name in self._inputs.items()}
            return inputs, arrays[self._targets]
        return arrays[self._inputs], arrays[self._targets]

    def _has_holes(self):
        """Whether a value may be missing: only a row that is read by itself tells which."""
        return any(self.dataset.data.column(name).null_count for name in self.features)

    def _values_of(self, column):
        """Returns the different texts of a column, sorted."""
        values = self.dataset.unique(column)
        if None in values:
            row = self.dataset[column][:].index(None)
            raise UserError(
                f"{self.name}, row {row}, column {column!r}: missing; expected a class in every row"
            )
        return sorted(values)


class HuggingFaceStream(_Columns):
    """A data set of `datasets` as a stream, such as one of the Hub that is not copied to the disk.

    Args:
        name, inputs, targets, split, subset, size, mode: see `HuggingFace`.
        classes: the classes of a target that is text, in the order of their labels.

    Raises:
        UserError: it cannot be loaded, has no such column, or a cell is no number or image.
    """

    def __init__(
        self,
        name: str,
        inputs: str | Mapping[str, str],
        targets: str,
        split: str | None = None,
        subset: str | None = None,
        size: Sequence[int] | None = None,
        mode: str = "RGB",
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, inputs, targets, split, subset, size, mode, streaming=True)
        if classes is not None:
            self.classes = [str(one) for one in classes]
        self._beginning = self.dataset.state_dict()

    def __iter__(self) -> Iterator[dict]:
        """Returns an iterator over all rows, which has a state."""
        return _Rows(self, self._beginning)

    def decode(self, record: dict) -> tuple[Any, Any]:
        """Returns the inputs and the target of a row."""
        return self.sample(record, self.name)


class _Rows:
    """The rows of a HuggingFaceStream, from its beginning or from a state on."""

    def __init__(self, stream, state):
        self._stream, self._dataset, self._read = stream, stream.dataset, 0
        self.set_state(state)

    def __iter__(self):
        return self

    def __next__(self):
        if self._read % CHECKED_EVERY == 0:
            self._stream.check_files()
        self._read += 1
        if self._rows is None:
            self._rows = iter(self._dataset)
        try:
            return next(self._rows)
        except (OSError, ValueError, RuntimeError) as error:  # also of pyarrow, and of networks
            reason = str(error).partition("\n")[0]
            raise UserError(f"{self._stream.name}: cannot be read any further: {reason}") from error

    def get_state(self):
        """Returns what `datasets` needs to go on here."""
        return self._dataset.state_dict() if self._rows else self._state

    def set_state(self, state):
        """Goes to where a state is from."""
        self._dataset.load_state_dict(state)
        self._state, self._rows = state, None


def _as_numbers(array: np.ndarray, where: str, indices: Any = None) -> np.ndarray:
    """Returns an array of numbers as devices compute with them: float32, int32 or smaller ones.

    Args:
        array: of any type.
        where: data set and column, for messages.
        indices: rows that the array's first axis stands for; None for a single cell.

    Raises:
        UserError: these are no numbers, not of one shape, or too large.
    """
    if array.dtype.kind not in "biuf":
        raise UserError(
            f"{where}: {array.dtype}; expected numbers, lists of numbers of one length, images, or "
            "text in the targets. Change the column with `datasets`' map, and save it"
        )
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.itemsize < 8:
        return array
    wrong = (array < INT32.min) | (array > INT32.max)
    if wrong.any():
        rows = "" if indices is None else f", row {np.ravel(indices)[np.argwhere(wrong)[0][0]]}"
        raise UserError(f"{where}{rows}: a whole number that int32 does not hold")
    return array.astype(np.int32)


def _load(library, name, split, subset, streaming):
    """Returns the Dataset of a folder or of the Hub, and the files that it maps."""
    saved = os.path.isdir(name) and any(
        os.path.exists(os.path.join(name, one)) for one in ("dataset_dict.json", "state.json")
    )
    try:
        if saved:
            loaded = library.load_from_disk(name)
        else:
            loaded = library.load_dataset(name, subset, split=split, streaming=streaming)
    except Exception as error:  # the library raises errors of its own, of networks and of files
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{name}: `datasets` cannot load it: {reason}. On a machine without a network name a "
            f'folder; one that has it writes it: datasets.load_dataset("{name}").save_to_disk(...)'
        ) from error
    if isinstance(loaded, Mapping):
        if split not in loaded:
            raise UserError(f"{name}: no split {split!r}; there are {', '.join(map(str, loaded))}")
        loaded = loaded[split]
    elif saved and split is not None and str(loaded.split) != split:
        raise UserError(f"{name}: is a single split, {loaded.split}; expected {split!r}")
    files = [one["filename"] for one in getattr(loaded, "cache_files", [])]
    return loaded.to_iterable_dataset() if saved and streaming else loaded, files
