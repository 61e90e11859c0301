"""Writes what a network predicts for each example: as CSV, Parquet, or NumPy's arrays (.npz)."""

import csv
import io
from pathlib import Path

import jax
import numpy as np

from training.common.files import atomic_file
from training.engine.evaluation import Predictions, Values
from training.report.classification import classify, probabilities
from utils import UserError, csv_text, optional_library, printable

PYARROW = "pyarrow==26.0.1"
FORMATS = (".csv", ".parquet", ".npz")
MOST_COLUMNS = 1000  # of a table
BLOCK = 4096  # rows written at a time


def check_name(name: str) -> None:
    """Refuses the name of a file for predictions that is of no format, or lacks its library."""
    if Path(name).suffix not in FORMATS:
        raise UserError(f"--predictions: {name}; expected a name that ends in {', '.join(FORMATS)}")
    if Path(name).suffix == ".parquet":
        optional_library("pyarrow.parquet", PYARROW, f"--predictions {name}")


def write_predictions(path: Path, predictions: Predictions | Values) -> None:
    """Writes a row for each example.

    Those of a classifier are index, target, prediction, probability and p_<class> of each class; of
    many classes top_1, p_1, ... of the most likely. Those of another network are index, and the
    columns of its outputs and targets.

    Raises:
        UserError: an example has more outputs than a table has columns.
    """
    path = Path(path)
    with atomic_file(path) as file:  # two at once do not mix
        if path.suffix == ".npz":
            np.savez(file, **_arrays(predictions))
        else:
            _write_table(file, path.suffix, predictions)


def _write_table(file, kind, predictions):
    of_kind = _class_columns if isinstance(predictions, Predictions) else _value_columns
    names, block_of = of_kind(predictions)
    count = len(predictions.targets) if of_kind is _class_columns else len(predictions.indices)
    blocks = (block_of(slice(start, start + BLOCK)) for start in range(0, count, BLOCK))
    write = _write_csv if kind == ".csv" else _write_parquet
    write(file, names, blocks)


def _class_columns(predictions):
    """Returns the names of the columns, and a function of a slice that returns the columns."""
    predicted, confidence, classes = classify(predictions)
    targets, indices, top = predictions.targets, predictions.indices, predictions.top
    names, classes = ["index", "target", "prediction", "probability"], np.array(classes, object)
    if top is None:
        names += [f"p_{name}" for name in classes]
    else:
        names += [
            one for rank in range(1, top[0].shape[1] + 1) for one in (f"top_{rank}", f"p_{rank}")
        ]

    def columns(rows):
        index = np.arange(len(targets))[rows] if indices is None else indices[rows]
        found = [index, classes[targets[rows]], classes[predicted[rows]], confidence[rows]]
        if top is None:
            parts = [part for _, part in probabilities(np.asarray(predictions.logits)[rows])]
            return [*found, *np.concatenate(parts).T]
        ranked = zip(top[0][rows].T, top[1][rows].T, strict=True)
        return [*found, *(one for guess, chance in ranked for one in (classes[guess], chance))]

    return names, columns


def _value_columns(values):
    """Returns the same of the outputs and targets of a network that is no classifier."""
    arrays = _arrays(values)
    tables = {name: array.reshape(len(array), -1) for name, array in arrays.items()}
    width = sum(table.shape[1] for table in tables.values())
    if width > MOST_COLUMNS:
        shapes = ", ".join(f"{name} {array.shape[1:]}" for name, array in arrays.items())
        raise UserError(
            f"--predictions: an example has {width} numbers ({shapes}); a table has at most "
            f"{MOST_COLUMNS} columns. Write the arrays: --predictions predictions.npz"
        )
    names = [
        name if arrays[name].ndim == 1 else f"{name}_{column}"
        for name, table in tables.items()
        for column in range(table.shape[1])
    ]
    return names, lambda rows: [column for table in tables.values() for column in table[rows].T]


def _arrays(predictions):
    """Returns {name: (examples, ...) array}."""
    if isinstance(predictions, Values):
        fields = {"output": predictions.outputs, "target": predictions.targets}
        paths = jax.tree_util.tree_leaves_with_path(fields)
        named = {jax.tree_util.keystr(path, simple=True, separator="_"): one for path, one in paths}
        return {"index": predictions.indices} | named
    predicted, confidence, _ = classify(predictions)
    targets, indices = predictions.targets, predictions.indices
    index = np.arange(len(targets)) if indices is None else indices
    found = {"index": index, "target": targets, "prediction": predicted, "probability": confidence}
    if predictions.top is None:
        return found | {"logits": predictions.logits}
    return found | {"top": predictions.top[0], "top_probability": predictions.top[1]}


def _write_csv(file, names, blocks):
    text = io.TextIOWrapper(file, newline="", encoding="utf-8")
    writer = csv.writer(text)
    writer.writerow([printable(name) for name in names])
    for columns in blocks:
        writer.writerows(zip(*map(_texts, columns), strict=True))
    text.detach()


def _texts(column):
    """Returns the texts of a column; 6 digits of a probability, 9 tell all float32 apart."""
    if column.dtype == object:
        known = {name: csv_text(name) for name in set(column)}
        return [known[name] for name in column]
    if column.dtype.kind == "f":
        digits = 9 if column.dtype == np.float32 else 6
        return [f"{one:.{digits}g}" for one in column.tolist()]
    return column.tolist()


def _write_parquet(file, names, blocks):
    import pyarrow
    import pyarrow.parquet

    writer = None
    for columns in blocks:
        arrays = [one.tolist() if one.dtype == object else one for one in columns]
        table = pyarrow.table([pyarrow.array(one) for one in arrays], names=names)
        writer = writer or pyarrow.parquet.ParquetWriter(file, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()
