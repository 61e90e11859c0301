"""Tables: CSV and Parquet files as a data set, every cell understood or refused with its place.

What a column means is learned from the training file alone: numbers with their mean and deviation,
or categories with their values. The test file is read by the same meaning, and a run keeps it in
its config (`fitted`), so that it is also what a resumed run and test.py use.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.sources.columns import (
    Column,
    category_codes,
    column_kind,
    read_booleans,
    read_dates,
    read_numbers,
    refuse_cell,
    values_of,
)
from data_loader.sources.table_files import read_table
from utils import UserError, nearest

READ = {"number": read_numbers, "boolean": read_booleans, "date": read_dates}
MOST_CATEGORIES = 1000  # of one column, where each becomes an input
LARGEST = 2**31  # of whole numbers as targets, which are int32


class Table:
    """A CSV or Parquet file, all in memory; each row is an example.

    Args:
        path: the file.
        target: name of the column to predict; a list of several, if they are numbers.
        inputs: names of the columns to predict from; None for all others.
        categories: names of inputs that are categories although they look like numbers.
        dates: names of inputs that are dates, "2026-01-31"; each becomes its number of days.
        classes: whether the target is a class: None if it is text; true also for numbers; or the
            classes in the order of their labels.
        encode: "one_hot": an input for each category, (features,) float32 in all; "index": the
            inputs are {"numbers": (numbers,) float32, "categories": (categories,) int32}.
        standardize: whether numbers are brought to mean 0 and deviation 1.
        missing: "refuse", or "fill": a missing number becomes the mean, a missing category, or one
            that the training file has not, a category of its own.
        missing_values: texts that stand for a missing value; None for the usual ones.
        separator: between the cells of a row; None for a comma, or a tab in .tsv files.
        decimal: character before the decimals of a number.
        encoding: of the file.
        groups: name of the column by which a loader's `"groups": "groups"` keeps rows together in
            folds; it is no input.
        fitted: what columns mean; None to learn it from this file. The test set is given that of
            the training set.

    Attributes:
        inputs: (examples, features) float32, or a dict as with "index".
        targets: (examples,) int32 classes or whole numbers, or float32; of several targets
            (examples, targets) float32.
        classes: names of the classes; only where the target is one.
        labels: the targets, where they are whole numbers.
        features: name of each input.
        groups: (examples,) texts, where their column is named.
        fitted: as above, as JSON can hold it.

    Raises:
        UserError: a cell is not what its column is; with row and column.
    """

    def __init__(
        self,
        path: str | Path,
        target: str | Sequence[str],
        inputs: Sequence[str] | None = None,
        categories: Sequence[str] = (),
        dates: Sequence[str] = (),
        classes: bool | Sequence[str] | None = None,
        encode: str = "one_hot",
        standardize: bool = True,
        missing: str = "refuse",
        missing_values: Sequence[str] | None = None,
        separator: str | None = None,
        decimal: str = ".",
        encoding: str = "utf-8",
        groups: str | None = None,
        fitted: dict[str, Any] | None = None,
    ) -> None:
        for name, value, choices in (
            ("encode", encode, ("one_hot", "index")),
            ("missing", missing, ("refuse", "fill")),
            ("decimal", decimal, (".", ",")),
        ):
            if value not in choices:
                raise UserError(f"Table: {name} is {value!r}; expected one of {choices}")
        self.path, self._fill, self._standardize = Path(path), missing == "fill", standardize
        self._missing_values, self._decimal = missing_values, decimal
        frame = read_table(path, separator, encoding)
        self._rows = frame.index.to_numpy()
        if groups is not None:
            self._check_names(frame, [groups])
            column = frame.pop(groups)
            self.groups = column.astype(str).to_numpy(str)
            if column.isna().any() or "" in self.groups:
                raise UserError(f"{self.path}: groups: {groups!r} lacks the value of some rows")
        targets = [target] if isinstance(target, str) else list(target)
        names = self._names(frame, targets, inputs, fitted)
        self._check_names(frame, [*targets, *names, *categories, *dates])
        columns = {name: self._column(frame, name) for name in [*names, *targets]}
        if fitted is None:
            fitted = {
                "inputs": {
                    name: self._fit(columns[name], name in categories, name in dates, encode)
                    for name in names
                },
                "target": self._fit_target([columns[name] for name in targets], classes),
            }
        self.fitted = fitted
        self._encode_inputs([columns[name] for name in names], encode)
        self._encode_target([columns[name] for name in targets])

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray]:
        """Returns the inputs and the target of a row."""
        return self.__getitems__(index)

    def __getitems__(self, indices: Any) -> tuple[Any, np.ndarray]:
        """Returns the inputs and the targets of the rows at `indices`."""
        if isinstance(self.inputs, dict):
            return {name: one[indices] for name, one in self.inputs.items()}, self.targets[indices]
        return self.inputs[indices], self.targets[indices]

    def checksum(self) -> str:
        """Returns the CRC-32 of all inputs and targets, 8 hexadecimal digits."""
        parts = [*self.inputs.values()] if isinstance(self.inputs, dict) else [self.inputs]
        value = 0
        for part in (*parts, self.targets):
            value = zlib.crc32(np.ascontiguousarray(part).data, value)
        return f"{value:08x}"

    def _names(self, frame, targets, inputs, fitted):
        """Returns the names of the inputs, in the order of the training file."""
        if fitted is not None:
            fits = isinstance(fitted, dict) and fitted.keys() == {"inputs", "target"}
            if not fits or set(inputs or fitted["inputs"]) != set(fitted["inputs"]):
                raise UserError(
                    f"{self.path}: `fitted` is of other inputs; leave it out to learn it again"
                )
            return list(fitted["inputs"])
        if inputs is None and "" in list(frame.columns):
            raise UserError(
                f"{self.path}: column {list(frame.columns).index('') + 1} has no name, as the "
                "numbers of rows that some programs write; name the `inputs`, or the column"
            )
        names = [name for name in frame.columns if name not in targets]
        names = names if inputs is None else list(inputs)
        both = [name for name in names if name in targets]
        if both or not names or len(set(names)) < len(names):
            got = f"{both[0]!r} is an input and the target" if both else f"inputs are {names}"
            raise UserError(f"{self.path}: {got}; expected columns, each named once")
        return names

    def _check_names(self, frame, names):
        known = list(frame.columns)
        absent = [name for name in names if name not in known]
        if absent:
            listed = ", ".join(map(repr, known[:20])) + ", ..." * (len(known) > 20)
            hint = nearest(absent[0], known)
            raise UserError(f"{self.path}: no column {absent[0]!r}{hint}; there are {listed}")

    def _column(self, frame, name):
        return Column(frame[name], name, self.path, self._rows, self._missing_values, self._decimal)

    def _fit(self, column, is_category, is_date, encode):
        """Returns what an input column means, learned from its values."""
        kind = "category" if is_category else "date" if is_date else column_kind(column)
        if kind == "category":
            values = values_of(column, empty=self._fill)
            if encode == "one_hot" and len(values) > MOST_CATEGORIES:
                raise UserError(
                    f"{column.where}: {len(values)} different values, each of which would be an "
                    f"input; expected at most {MOST_CATEGORIES}. Leave it out of `inputs` if it "
                    'names the rows, or set "encode": "index"'
                )
            return {"kind": kind, "values": values}
        numbers, missing = READ[kind](column)
        _as_float32(column, np.where(missing, 0, numbers), distinct=False)
        known = numbers[~missing]
        if not len(known):
            raise UserError(f"{column.where}: has no value at all; leave it out of `inputs`")
        mean, deviation = (known.mean(), known.std()) if self._standardize else (0.0, 1.0)
        fill = float(mean if self._standardize else known.mean())
        return {"kind": kind, "mean": float(mean), "std": float(deviation) or 1.0, "fill": fill}

    def _fit_target(self, columns, classes):
        """Returns what the target is: a class with its values, or numbers."""
        if len(columns) > 1:
            return {"kind": "number"}
        (column,) = columns
        if isinstance(classes, list | tuple):
            return {"kind": "class", "values": [str(one) for one in classes]}
        missing = column.missing(every=False)
        if missing.any():
            refuse_cell(column, missing, "missing; expected a target in every row")
        kind = "category" if classes is True else column_kind(column)
        if classes is not False and kind in ("category", "boolean"):
            return {"kind": "class", "values": values_of(column, empty=False)}
        kind = "number" if kind == "category" else kind  # which refuses text, as classes are
        READ[kind](column)
        return {"kind": kind, "whole": bool(column.is_whole)}

    def _encode_inputs(self, columns, encode):
        numbers, codes, self.features = [], [], []
        for column in columns:
            meaning = self.fitted["inputs"][column.name]
            if meaning["kind"] == "category":
                one = category_codes(column, meaning["values"], self._fill)
                codes.append((column.name, meaning["values"], one))
            else:
                numbers.append(self._scaled(column, meaning))
                self.features.append(column.name)
        stack = np.stack(numbers, 1) if numbers else np.zeros((len(self._rows), 0), np.float32)
        if encode == "index" and codes:
            self.features += [name for name, _, _ in codes]
            indices = np.stack([one for _, _, one in codes], 1)
            self.inputs = {"numbers": stack, "categories": indices}
            return
        hot = [
            (one[:, None] == np.arange(len(values))).astype(np.float32) for _, values, one in codes
        ]
        self.features += [f"{name}={value}" for name, values, _ in codes for value in values]
        self.inputs = np.concatenate([stack, *hot], 1)

    def _scaled(self, column, meaning):
        """Returns a column of numbers as the network gets it, (examples,) float32."""
        numbers, missing = READ[meaning["kind"]](column)
        if missing.any() and not self._fill:
            refuse_cell(
                column, missing, 'missing; fill it in the file, or set "missing": "fill" (the mean)'
            )
        numbers = np.where(missing, meaning["fill"], numbers)
        return _as_float32(column, (numbers - meaning["mean"]) / meaning["std"])

    def _encode_target(self, columns):
        meaning = self.fitted["target"]
        if meaning["kind"] == "class":
            self.classes = list(meaning["values"])
            self.targets = category_codes(columns[0], self.classes, False)
            self.labels = self.targets
            return
        parts = []
        for column in columns:
            numbers, missing = READ[meaning["kind"]](column)
            if missing.any():
                refuse_cell(column, missing, "missing; expected a target in every row")
            parts.append(numbers)
        if not meaning.get("whole"):
            floats = [_as_float32(*pair) for pair in zip(columns, parts, strict=True)]
            self.targets = floats[0] if len(floats) == 1 else np.stack(floats, 1)
            return
        wrong = (parts[0] % 1 != 0) | (np.abs(parts[0]) >= LARGEST)
        if wrong.any():
            refuse_cell(
                columns[0], wrong, f"expected a whole number below {LARGEST}, as the others"
            )
        self.targets = self.labels = parts[0].astype(np.int32)


def _as_float32(column, numbers, distinct=True):
    """Returns the numbers as float32, unless it cannot hold them, or not tell them apart."""
    with np.errstate(over="ignore"):
        floats = numbers.astype(np.float32)
    if not np.isfinite(floats).all():
        refuse_cell(column, ~np.isfinite(floats), "too large for float32")
    if distinct and column.is_whole and len(np.unique(floats)) < len(np.unique(numbers)):
        raise UserError(
            f"{column.where}: whole numbers so large that float32 cannot tell them apart. Leave "
            "the column out of `inputs` if it names the rows, or list it in `categories`"
        )
    return floats
