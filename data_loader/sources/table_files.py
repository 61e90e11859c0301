"""Reads CSV and Parquet files whole: every row is there, or the file is refused with the row."""

import contextlib
import csv
import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from utils import UserError, optional_library

PANDAS, PARQUET = "pandas==3.1.1", "pandas==3.1.1 pyarrow==26.0.1"
SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}


def read_table(path: str | Path, separator: str | None, encoding: str) -> Any:
    """Returns a file as a pandas DataFrame.

    Its index are the numbers of the rows as an editor or a spreadsheet counts them: the first row
    below the header of a CSV file is 2, the first of a Parquet file 1. The cells of a CSV file are
    text without spaces around it.

    Args:
        path: a CSV file (.csv, .tsv, .tab, .txt, also .gz) or a Parquet file (.parquet).
        separator: character between the cells of a row; None: by the file's ending.
        encoding: of a CSV file.

    Raises:
        UserError: it cannot be read, a row has more or fewer cells than the header, or names of
            columns are missing or occur twice.
    """
    path = Path(path)
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    with _read_errors(path, encoding):
        if ending.lower() == ".parquet":
            pandas = optional_library("pandas", PARQUET, f"{path}")
            optional_library("pyarrow", PARQUET, f"{path}")
            frame = pandas.read_parquet(path)
            frame.index = range(1, len(frame) + 1)
        elif separator is None and ending.lower() not in SEPARATORS:
            raise UserError(
                f"{path}: not one of {', '.join([*SEPARATORS, '.parquet'])}; name the separator of "
                "its cells if it is such a text"
            )
        else:
            frame = _read_csv(path, separator or SEPARATORS[ending.lower()], encoding)
    if not len(frame):
        raise UserError(f"{path}: no rows, only the names of columns; expected examples")
    names = [str(name) for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise UserError(f"{path}: there are several columns {twice[0]!r}; give each its own name")
    frame.columns = names
    return frame


def _read_csv(path, separator, encoding):
    """Reads a CSV file by pandas, once Python's csv has counted the cells of each row."""
    pandas = optional_library("pandas", PANDAS, f"{path}")
    with _open(path, encoding) as file:
        header, rows = _count_rows(path, csv.reader(file, delimiter=separator, strict=True))
    with _open(path, encoding) as file:
        frame = pandas.read_csv(
            file, sep=separator, dtype=str, header=None, index_col=False, keep_default_na=False,
            skip_blank_lines=False,
        )  # fmt: skip
    if len(frame) <= rows[-1] or len(frame.columns) != len(header):
        raise UserError(f"{path}: has line ends of several kinds; save it again as CSV")
    frame = frame.iloc[rows[1:]]
    frame.columns, frame.index = header, np.asarray(rows[1:]) + 1
    return frame.apply(lambda column: column.str.strip())


def _count_rows(path, reader):
    """Returns the header, and the positions of the rows that are not blank; all as wide as it."""
    header, positions = None, []
    for position, row in enumerate(reader):
        if not row:
            continue
        if header is None:
            header = [name.strip() for name in row]
            _check_header(path, header, reader.dialect.delimiter)
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {reader.line_num}: {len(row)} cells, but the header has "
                f"{len(header)}; expected as many. Put quotes around a cell that contains the "
                "separator"
            )
        if any("\0" in cell for cell in row):
            raise UserError(f"{path}, line {reader.line_num}: a zero byte; is it a text file?")
        positions.append(position)
    if header is None:
        raise UserError(f"{path}: empty; expected the names of columns and rows")
    return header, positions


def _check_header(path, header, separator):
    """Refuses a header of numbers, and a single column that holds other separators."""
    if all(_is_number(name) for name in header):
        raise UserError(
            f"{path}: the first row is {', '.join(header[:4])}; expected the names of the columns"
        )
    others = [one for one in ",;\t|" if one != separator and one in header[0]]
    if len(header) == 1 and others:
        raise UserError(
            f"{path}: one column named {header[0]!r}; are its cells separated by {others[0]!r}? "
            f'Then say "separator": "{others[0]}"'.replace("\t", "\\t")
        )


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _open(path: Path, encoding: str) -> IO[str]:
    encoding = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return open(path, encoding=encoding, newline="")


@contextlib.contextmanager
def _read_errors(path: Path, encoding: str) -> Iterator[None]:
    """Raises what goes wrong while a file is read as a UserError."""
    try:
        if os.path.isdir(path):
            raise UserError(f"{path}: a folder; expected a CSV or Parquet file")
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeError as error:
        raise UserError(
            f"{path}: not a text in {encoding} ({error}); say its encoding, such as "
            '"encoding": "latin-1", "cp1252" or "utf-16"'
        ) from None
    except LookupError as error:
        raise UserError(f"{path}: {error}; expected an encoding such as 'utf-8'") from None
    except Exception as error:  # the readers raise OSError, csv.Error, ArrowInvalid and many more
        raise UserError(f"{path}: cannot be read as a table: {error}") from error
