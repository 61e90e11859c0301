"""Turns the lines of metrics.jsonl into charts: plain numbers, in percent, for the template."""

import math
from itertools import pairwise

import numpy as np

from training.common.records import STD

CURVE_POINTS = 200  # of one line; a longer one shows medians, within a band of the extremes
DOTTED_POINTS = 30  # up to this many points have a dot each
READOUTS = 100  # places at which hovering shows the values
LOG_RATIO = 20  # a loss whose largest value is this many times its smallest gets a log scale

# What a key begins with -> the line of the chart it belongs to.
LINES = {
    "epoch_train_": "train",
    "validation_": "validation",
    "test_": "test",
    "train_": "interval",
}
LABELS = {"only": "", "interval": "train"}  # of lines that are not called by their own name
LOWER_IS_BETTER = ("loss", "error", "perplexity", "distance")
RATES = ("learning_rate", "gradient_norm")  # of every interval; their means say little


def measures(line: dict) -> dict[str, float]:
    """Returns what a line measured: its numbers, without its place in time."""
    numbers = {key: math.nan if value is None else value for key, value in line.items()}
    return {
        key: value
        for key, value in numbers.items()
        if key not in ("step", "epoch", "batch") and type(value) in (int, float)
    }


def lower_is_better(key: str) -> bool:
    """Tells, by its name, whether a measure is one to bring down."""
    return any(word in key for word in LOWER_IS_BETTER)


def charts(metrics: list[dict]) -> list[dict]:
    """Returns a chart for each measure; those with a test or validation line come first.

    Args:
        metrics: the lines of metrics.jsonl.
    """
    measured, unit = curves(metrics)
    end = max(
        (x for curve in measured.values() for line in curve.values() for x, _ in line), default=0
    )
    for name, curve in measured.items():
        if "only" in curve:
            measured[name] = {"only": curve["only"]}
    order = sorted(measured, key=lambda name: "only" in measured[name])
    return [chart(name, measured[name], end or 1, unit) for name in order]


def curves(metrics: list[dict]) -> tuple[dict, str]:
    """Returns {measure: {line: [(x, value), ...]}}, and the unit of x: "epoch", or "step".

    Args:
        metrics: the lines of metrics.jsonl; there are steps only where no epoch was finished.
    """
    ends = [
        line for line in metrics if line.get("epoch") and "step" in line and "batch" not in line
    ]
    steps = ends[-1]["step"] / ends[-1]["epoch"] if ends else 1  # in an epoch
    found = {}
    for line in metrics:
        x = line["step"] / steps if "step" in line else line.get("epoch")
        for key, value in measures(line).items() if x is not None else ():
            if key.endswith(STD):
                continue  # the table has it
            start = next((start for start in LINES if key.startswith(start)), "")
            curve = found.setdefault(key.removeprefix(start), {})
            curve.setdefault(LINES.get(start, "only"), []).append((x, value))
    return found, "epoch" if ends else "step"


def chart(name: str, curve: dict, end: float, unit: str, labels: dict = LABELS) -> dict:
    """Returns a chart as the template draws it, in percent of the plot from its upper left.

    Args:
        name: of the measure.
        curve: {line: [(x, value), ...]}; a line is a class of the style sheet.
        end: of the x axis.
        unit: of the x axis.
        labels: what to call a line that is not called by its own name.
    """
    values = np.array([y for points in curve.values() for _, y in points], float)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        finite = np.array([0.0, 1.0])
    low, high = finite.min(), finite.max()
    log = (lower_is_better(name) or name.endswith("norm")) and low > 0 and high / low >= LOG_RATIO
    if name.endswith(RATES) and not log:
        low = min(low, 0)
    place_y, y_ticks = log_scale(low, high) if log else scale(low, high)
    place_x, x_ticks = scale(0, end, whole=True)

    def place(points):
        return [(place_x(x), 100 - place_y(y)) for x, y in points]

    curve = dict(sorted(curve.items(), key=lambda pair: pair[0] != "interval"))  # it lies below
    thin = {line: _thin(points) for line, points in curve.items()}
    shown = {line: points for line, points in curve.items() if line != "interval"} or curve
    return {
        "name": name.replace("_", " "),
        "unit": unit,
        "labels": {line: labels.get(line, line) for line in curve},
        "log": log,
        "missing": values.size - np.isfinite(values).sum(),
        "y_ticks": [(100 - place_y(y), text) for y, text in y_ticks],
        "x_ticks": [(place_x(x), text) for x, text in x_ticks if x <= end],
        "bands": {line: _band(*map(place, band)) for line, (_, band) in thin.items() if band},
        "paths": {line: _path(place(points)) for line, (points, _) in thin.items()},
        "dots": {
            line: [(x, y) for x, y in place(points) if math.isfinite(y)]
            for line, points in shown.items()
            if len(points) <= DOTTED_POINTS
        },
        "first": {line: points[0][1] for line, points in shown.items()},
        "last": {line: points[-1][1] for line, points in shown.items()},
        "readouts": _readouts(shown, end),
    }


def scale(low, high, whole=False):
    """A linear scale whose ends are round: its position function, and its (value, label) ticks."""
    if low == high:
        low, high = min(0, low), max(0, high) or 1
    step = _round_up((high - low) / (8 if whole else 5))
    step = max(step, 1) if whole else step
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    low, high = first * step, high if whole else last * step
    decimals = max(0, -math.floor(math.log10(step)))
    style = "g" if decimals > 5 or high >= 1e6 else f",.{decimals}f"
    ticks = [(i * step, format(i * step, style)) for i in range(first, last + 1)]
    return lambda y: 100 * (y - low) / (high - low), ticks


def log_scale(low, high):
    """The same for a logarithmic scale."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 100 else (1,)
    bottom, top = math.log10(low) - 0.05, math.log10(high) + 0.05
    marks = [step * 10.0**decade for decade in decades[:: len(decades) // 6 + 1] for step in steps]
    ticks = [(mark, f"{mark:g}") for mark in marks if bottom <= math.log10(mark) <= top]
    # What is not above zero here is not finite either, and `_path` leaves it out.
    return lambda y: 100 * ((math.log10(y) if y > 0 else y) - bottom) / (top - bottom), ticks


def _round_up(step):
    """The next of 1, 2, 5, 10, 20, 50, ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def _thin(points):
    """A line of at most CURVE_POINTS points, and the (lowest, highest) lines around it, or none."""
    if len(points) <= CURVE_POINTS:
        return points, None
    stretches = np.array_split(np.array(points, float), CURVE_POINTS)
    x = [stretch[:, 0].mean() for stretch in stretches]
    middle, low, high = (
        list(zip(x, (pick(stretch[:, 1]) for stretch in stretches), strict=True))
        for pick in (np.median, np.min, np.max)
    )
    return middle, (low, high)


def _path(places):
    """An SVG path, with a gap where a value is not finite."""
    path, pen = [], "M"
    for x, y in places:
        if math.isfinite(y):
            path.append(f"{pen}{x:.2f} {y:.2f}")
        pen = "L" if math.isfinite(y) else "M"
    return "".join(path)


def _band(low, high):
    """The SVG path of the area between two lines."""
    places = [(x, y) for x, y in [*low, *reversed(high)] if math.isfinite(y)]
    return _path(places) + "Z" if places else ""


def _readouts(curve, end):
    """What hovering shows: {"width": in percent, "x": ..., "lines": {line: value}} in a row."""
    curve = {line: dict(points) for line, points in curve.items()}
    places = sorted({x for points in curve.values() for x in points})
    places = places[:: -(-len(places) // READOUTS) or 1]
    edges = [0, *((a + b) / 2 for a, b in pairwise(places)), end]
    return [
        {
            "x": x,
            "width": 100 * (right - left) / end,
            "lines": {line: points[x] for line, points in curve.items() if x in points},
        }
        for x, (left, right) in zip(places, pairwise(edges), strict=True)
    ]
