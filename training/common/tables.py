"""Tables as text."""

from utils import printable


def text_table(rows, align):
    """Returns a line for each row of texts, with the columns aligned.

    Args:
        rows: lists of texts, all of the same length.
        align: for each column "<" (left) or ">" (right), as in a format.
    """
    rows = [list(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    formats = [f"{{:{side}{width}}}" for side, width in zip(align, widths, strict=True)]
    return ["  ".join(formats).format(*row).rstrip() for row in rows]
