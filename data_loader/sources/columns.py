"""What a column of a table is: its cells as numbers, dates or categories. For tables.py."""

import datetime
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from utils import UserError, nearest

# Texts that stand for a missing number; a missing category is an empty cell.
MISSING = ("", "na", "n/a", "#n/a", "nan", "null", "none", "-", "?")
NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
INFINITE = r"[-+]?(inf|infinity)"
CODE = r"[-+]?0\d+"  # a number would lose its leading zeros
DAY_FIRST, TIME = r"\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}( .*)?", r"\d{1,2}:\d{2}(:\d{2}.*)?"
DATE = rf"\d{{4}}[/-]\d{{1,2}}[/-]\d{{1,2}}([T ].*)?|{DAY_FIRST}|{TIME}"
LOOKS_LIKE_A_NUMBER = (
    r"[-+]?[$€£]?\s*[\d.,'\s]*\d[\d.,'\s]*\s*[%$€£]?"  # 1,5  1 000  1.234,5  $3  7%
)
WHOLE = 2**53  # from here on float64 does not hold every whole number
DAY = np.timedelta64(1, "D")


class Column:
    """A column of a DataFrame: text, as in CSV files, or values with a type, as in Parquet files.

    Attributes:
        name: of the column.
        where: file and column, for messages.
        is_text: whether its cells are text.
        is_boolean: whether they are true and false, as text or not.
        is_whole: whether they are whole numbers, written without a point.
    """

    def __init__(
        self,
        series: Any,
        name: str,
        path: Any,
        rows: Any,
        missing_values: Sequence | None,
        decimal: str,
    ) -> None:
        self.name, self.where, self._path = name, f"{path}, column {name!r}", path
        self.rows, self._decimal = rows, decimal
        self._missing_values = missing_values
        if str(series.dtype) == "object" and _is_dates(series):
            series = series.astype("datetime64[s]")
        kind = str(series.dtype)
        self.is_text = kind in ("str", "string", "object", "category")
        if self.is_text:
            series = self._as_text(series)
        self.series = series
        present = series[~self.missing()]
        self.is_boolean = kind in ("bool", "boolean") or (
            self.is_text and len(present) > 0 and present.str.lower().isin(["true", "false"]).all()
        )
        self.is_whole = kind.lower().startswith(("int", "uint")) or (
            self.is_text and len(present) > 0 and present.str.fullmatch(r"[-+]?\d+").all()
        )

    def missing(self, every: bool = True) -> np.ndarray:
        """Returns where a value is missing, (rows,) bool; `every` also by a word such as "NA"."""
        if not self.is_text:
            return self.series.isna().to_numpy(bool)
        if self._missing_values is not None:
            words = [str(one).strip().lower() for one in self._missing_values] + [""]
        else:
            words = MISSING if every else [""]
        return self.series.str.lower().isin(words).to_numpy(bool)

    def normal(self) -> Any:
        """Returns the text of each cell with a point before the decimals of a number."""
        if self._decimal == ".":
            return self.series
        text = self.series.str.replace(".", "_", regex=False)  # then "1.500" is no number
        return text.str.replace(self._decimal, ".", regex=False)

    def cell(self, position: int) -> str:
        """Returns a cell as it stands in the file, for a message."""
        value = self.series.iloc[position]
        return repr(value) if isinstance(value, str) else str(value)

    def _as_text(self, series):
        """Text of a column whose values may be of any type, "" where there is none."""
        values = series.astype(object).where(series.notna(), "")
        odd = values.map(lambda one: not isinstance(one, str | int | float | bool)).to_numpy(bool)
        if odd.any():
            got = type(values.iloc[int(odd.argmax())]).__name__
            raise UserError(
                f"{self._path}, row {self.rows[odd.argmax()]}, column {self.name!r}: a {got}; "
                "expected a number, a text or a date in every cell"
            )
        return values.map(str).astype("str").str.strip()


def refuse_cell(column: Any, wrong: np.ndarray, reason: str) -> NoReturn:
    """Raises the UserError of the first cell that is wrong, and says how many there are."""
    position, count = int(np.argmax(wrong)), int(np.sum(wrong))
    others = f" ({count} such cells)" if count > 1 else ""
    raise UserError(
        f"{column._path}, row {column.rows[position]}, column {column.name!r}: "
        f"{column.cell(position)}{others}: {reason}"
    )


def column_kind(column: Any) -> str:
    """Returns "number", "boolean" or "category"; what may be either is refused with a way out."""
    if not column.is_text:
        if str(column.series.dtype).startswith(("datetime", "date", "time")):
            raise UserError(f"{column.where}: dates; list it in `dates`, or leave it out")
        return "boolean" if column.is_boolean else "number"
    if column.is_boolean:
        return "boolean"
    text, missing = column.normal(), column.missing()
    number = text.str.fullmatch(f"{NUMBER}|{INFINITE}", case=False).to_numpy(bool)
    if number.any():
        codes = text.str.fullmatch(CODE).to_numpy(bool)
        if codes.any():
            refuse_cell(column, codes, "a number with leading zeros; is it a code? Then list the "
                        "column in `categories`")  # fmt: skip
        wrong = ~number & ~missing
        if wrong.any():
            refuse_cell(
                column, wrong, "not a number, but other cells of the column are; fix "
                "it, list it in `missing_values`, or the column in `categories`"
            )  # fmt: skip
        return "number"
    dates = text.str.fullmatch(DATE).to_numpy(bool)
    if dates.any():
        refuse_cell(
            column, dates, "a date; list the column in `dates`, or leave it out of `inputs`"
        )
    like = column.series.str.fullmatch(LOOKS_LIKE_A_NUMBER).to_numpy(bool)
    if like.any():
        refuse_cell(
            column, like, 'looks like a number; write it as 1234.5, or set "decimal": "," where '
            "that stands before the decimals. If it is a code, list the column in `categories`"
        )  # fmt: skip
    return "category"


def read_numbers(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns a column as (rows,) float64, and where it is missing, (rows,) bool."""
    missing = column.missing()
    if not column.is_text:
        numbers = _typed_numbers(column, missing)
    else:
        text = column.normal()
        valid = text.str.fullmatch(f"{NUMBER}|{INFINITE}", case=False).to_numpy(bool)
        if (wrong := ~valid & ~missing).any():
            refuse_cell(column, wrong, "not a number, as those of the column are")
        numbers = text.where(~missing, "0").astype(np.float64).to_numpy()
    numbers = np.where(missing, np.nan, numbers)
    if (wrong := np.isinf(numbers)).any():
        refuse_cell(column, wrong, "not finite; expected a number, or an empty cell")
    if column.is_whole and (wrong := np.abs(numbers) >= WHOLE).any():
        refuse_cell(column, wrong, "too large to be held exactly; is it a code? Then leave the "
                    "column out of `inputs`, or list it in `categories`")  # fmt: skip
    return numbers, missing


def read_booleans(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns a column of true and false as (rows,) float64, 1 and 0; and where it is missing."""
    missing = column.missing()
    text = (column.series if column.is_text else column.series.astype(str)).str.lower()
    if (wrong := ~text.isin(["true", "false"]).to_numpy(bool) & ~missing).any():
        refuse_cell(column, wrong, "not true or false, as those of the column are")
    return np.where(missing, np.nan, (text == "true").to_numpy(np.float64)), missing


def read_dates(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns a column of dates as days since 1970-01-01, (rows,) float64; and where missing."""
    import pandas

    missing = column.missing()
    if column.is_text:
        text = column.series.where(~missing, "1970-01-01")
        dates = pandas.to_datetime(text, format="ISO8601", errors="coerce", utc=True)
    elif str(column.series.dtype).startswith("datetime"):
        dates = pandas.to_datetime(column.series, utc=True)
    else:
        raise UserError(f"{column.where}: {column.series.dtype}; expected dates")
    if (wrong := dates.isna().to_numpy(bool) & ~missing).any():
        refuse_cell(column, wrong, "not a date; expected it as 2026-01-31")
    times = dates.dt.tz_localize(None).to_numpy("datetime64[us]")
    return np.where(missing, np.nan, (times - np.datetime64(0, "us")) / DAY), missing


def values_of(column: Any, empty: bool) -> list[str]:
    """Returns the different values of a column of categories, sorted, as text.

    With `empty` there is one more, "", for what is missing or not among them.
    """
    text, missing = _category_text(column), column.missing(every=False)
    lines = text.str.contains("\n", regex=False).to_numpy(bool)
    if lines.any():
        refuse_cell(column, lines, "a text of several lines; is a quote not closed?")
    values = sorted(text[~missing].unique(), key=_order)
    if not values:
        raise UserError(f"{column.where}: has no value at all; leave it out of `inputs`")
    return [*values, ""] if empty else values


def category_codes(column: Any, values: list[str], fill: Any) -> np.ndarray:
    """Returns the index of each cell's value, (rows,) int32."""
    import pandas

    text, missing = _category_text(column), column.missing(every=False)
    codes = pandas.Index(values).get_indexer(text.where(~missing, "")).astype(np.int32)
    if fill and "" in values:
        return np.where(codes < 0, values.index(""), codes).astype(np.int32)
    if missing.any():
        refuse_cell(column, missing, 'missing; expected one in every row, or "missing": "fill" '
                    "for inputs")  # fmt: skip
    if (unseen := codes < 0).any():
        near = nearest(text.iloc[int(unseen.argmax())], values)
        listed = ", ".join(map(repr, values[:10])) + ", ..." * (len(values) > 10)
        refuse_cell(column, unseen, f"expected one of {listed}, as in the training file{near}. "
                    'Fix the file, or for inputs set "missing": "fill"')  # fmt: skip
    return codes


def _category_text(column):
    """Text of each cell as a category: whole numbers of a float column without their ".0"."""
    if column.is_text:
        return column.series.str.capitalize() if column.is_boolean else column.series
    missing = column.series.isna()
    values = column.series.astype(object).where(~missing, "")

    def text(one):
        whole = isinstance(one, float) and one.is_integer()
        return str(int(one)) if whole else str(one)

    return values.map(text).astype("str")


def _is_dates(series):
    """Whether the first value there is, of a column of objects, is a date without a time."""
    present = series.dropna()
    return len(present) > 0 and type(present.iloc[0]) is datetime.date


def _typed_numbers(column, missing):
    kind = str(column.series.dtype).lower()
    if not kind.startswith(("int", "uint", "float", "bool", "double", "decimal")):
        raise UserError(f"{column.where}: {column.series.dtype}; expected numbers")
    return column.series.mask(missing, 0).to_numpy(np.float64)


def _order(value):
    """Sorts numbers by their value, before text."""
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, 0.0, value)
