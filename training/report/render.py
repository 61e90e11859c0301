"""Fills in the templates of the HTML pages, and formats the numbers on them."""

import functools
import math
from pathlib import Path

import jinja2


def render(template: str, folder: Path = Path(__file__).parent, **values) -> str:
    """Returns a template, filled in; what it includes may also be in this module's folder."""
    return _environment(folder).get_template(template).render(**values)


@functools.cache
def _environment(folder):
    """The compiled templates of a folder."""
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    formats = {"number": format_number, "percent": format_percent, "is_finite": math.isfinite}
    jinja.filters |= formats
    return jinja


def format_number(value):
    """Returns a number as text, with few enough digits that a column lines up; text as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    if 0.01 <= abs(value) < 1000:
        return f"{value:.{4 if abs(value) < 10 else 2}f}"
    return f"{value:.3g}" if math.isfinite(value) else str(value).replace("nan", "NaN")


def format_percent(share):
    """Returns a share in percent as text: 100 only for exactly 1, and "–" for NaN."""
    if math.isnan(share):
        return "–"
    return "100" if share == 1 else f"{min(100 * share, 99.9):.1f}"


def format_duration(seconds):
    """Returns a time span as text, in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
