"""Turns the lines of metrics.jsonl into charts: plain numbers, in percent, for the template."""

import math
from itertools import pairwise

import numpy as np

from training.common.records import STD

CURVE_POINTS = 200  # of one line; a longer one shows medians, within a band of the extremes
DOTTED_POINTS = 30  # up to this many points have a dot each
READOUTS = 100  # positions at which hovering shows the values
BINS = 30  # of a histogram
LOG_RATIO = 20  # a loss whose largest value is this many times its smallest gets a log scale

# The prefix of a metric's name -> the line of the chart it belongs to.
LINES = {
    "epoch_train_": "train",
    "validation_": "validation",
    "test_": "test",
    "train_": "interval",
}
LABELS = {"only": "", "interval": "train"}  # of lines whose label is not their own name
LOWER_IS_BETTER = ("loss", "error", "perplexity", "distance")
RATES = ("learning_rate", "gradient_norm")  # of every interval; their means say little


def metrics_of(line: dict) -> dict[str, float]:
    """Returns the metrics of a line: its numbers, without step, epoch and batch."""
    return {
        key: math.nan if value is None else value
        for key, value in line.items()
        if key not in ("step", "epoch", "batch") and (value is None or type(value) in (int, float))
    }


def lower_is_better(name: str) -> bool:
    """Whether a metric is minimized, judging by its name."""
    return any(word in name for word in LOWER_IS_BETTER)


def charts(lines: list[dict]) -> list[dict]:
    """Returns a chart for each metric; those with a test or validation line are first."""
    found, unit = curves(lines)
    end = last_x(found.values())
    order = sorted(found, key=lambda name: "only" in found[name])
    return [chart(name, found[name], end, unit) for name in order]


def last_x(found):
    """Returns the end of the x axis that all of some curves have."""
    ends = (x for curve in found for points in curve.values() for x, _ in points)
    return max(ends, default=0) or 1


def curves(lines: list[dict]) -> tuple[dict, str]:
    """Returns {metric: {line: [(x, value), ...]}}, and the unit of x.

    The unit is "epoch", or "step" where no epoch was finished.
    """
    ends = [line for line in lines if line.get("epoch") and line.get("step")]
    ends = [line for line in ends if "batch" not in line]
    steps = ends[-1]["step"] / ends[-1]["epoch"] if ends else 1  # in an epoch
    found = {}
    for line in lines:
        x = line["step"] / steps if "step" in line else line.get("epoch")
        for key, value in metrics_of(line).items() if x is not None else ():
            if key.endswith(STD):
                continue  # the table has it
            prefix = next((prefix for prefix in LINES if key.startswith(prefix)), "")
            curve = found.setdefault(key.removeprefix(prefix), {})
            curve.setdefault(LINES.get(prefix, "only"), []).append((x, value))
    found = {
        name: {"only": curve["only"]} if "only" in curve else curve for name, curve in found.items()
    }
    return found, "epoch" if ends else "step"


def chart(name: str, curve: dict, end: float, unit: str, labels: dict = LABELS) -> dict:
    """Returns a chart as the template draws it, in percent of the plot from its upper left.

    Args:
        name: of the metric.
        curve: {line: [(x, value), ...]}; a line is a class of the style sheet.
        end, unit: of the x axis.
        labels: of lines whose label is not their own name.
    """
    values = np.array([y for points in curve.values() for _, y in points], float)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        finite = np.array([0.0, 1.0])
    low, high = finite.min(), finite.max()
    log = (lower_is_better(name) or name.endswith("norm")) and low > 0 and high / low >= LOG_RATIO
    if name.endswith(RATES) and not log:
        low = min(low, 0)
    scale_y, y_ticks = log_scale(low, high) if log else linear_scale(low, high)
    scale_x, x_ticks = linear_scale(0, end, integers=True)

    def scaled(points):
        return [(scale_x(x), 100 - scale_y(y)) for x, y in points]

    curve = dict(sorted(curve.items(), key=lambda pair: pair[0] != "interval"))  # drawn first
    reduced = {line: _downsample(points) for line, points in curve.items()}
    shown = {line: points for line, points in curve.items() if line != "interval"} or curve
    return {
        "name": name.replace("_", " "),
        "unit": unit,
        "labels": {line: labels.get(line, line) for line in curve},
        "log": log,
        "missing": values.size - np.isfinite(values).sum(),
        "y_ticks": [(100 - scale_y(y), text) for y, text in y_ticks],
        "x_ticks": [(scale_x(x), text) for x, text in x_ticks if x <= end],
        "bands": {line: _band(*map(scaled, band)) for line, (_, band) in reduced.items() if band},
        "paths": {line: _path(scaled(points)) for line, (points, _) in reduced.items()},
        "dots": {
            line: [(x, y) for x, y in scaled(points) if math.isfinite(y)]
            for line, points in shown.items()
            if len(points) <= DOTTED_POINTS
        },
        "first": {line: points[0][1] for line, points in shown.items()},
        "last": {line: points[-1][1] for line, points in shown.items()},
        "readouts": _readouts(shown, end),
    }


def scatter(name, x, y, unit, legend):
    """Returns a chart of points, and of where both are equal; `legend` is {what: number}."""
    known = np.isfinite(x) & np.isfinite(y)
    both = np.concatenate([x[known], y[known]])
    low, high = (both.min(), both.max()) if both.size else (0.0, 1.0)
    scale, ticks = linear_scale(low, high)
    points = [(scale(a), 100 - scale(b)) for a, b in zip(x[known], y[known], strict=True)]
    return _plain(name, unit, ticks, ticks, scale, scale, legend) | {
        "missing": int((~known).sum()),
        "paths": {"ideal": "M0 100L100 0"},
        "dots": {"test": points},
    }


def histogram(name, values, legend):
    """Returns a chart of how many of some values are in each of BINS equal spans."""
    known = values[np.isfinite(values)]
    counts, edges = np.histogram(known, BINS)
    scale_x, x_ticks = linear_scale(edges[0], edges[-1])
    scale_y, y_ticks = linear_scale(0, max(1, counts.max()))
    bars = [
        f"M{scale_x(left):.2f} 100V{100 - scale_y(count):.2f}H{scale_x(right):.2f}V100Z"
        for count, (left, right) in zip(counts.tolist(), pairwise(edges), strict=True)
    ]
    return _plain(name, "", x_ticks, y_ticks, scale_x, scale_y, legend) | {
        "missing": len(values) - len(known),
        "bands": {"test": "".join(bars)},
    }


def _plain(name, unit, x_ticks, y_ticks, scale_x, scale_y, legend):
    """A chart without lines."""
    (label, number), *_ = legend.items()
    return {
        "name": name, "unit": unit, "log": False, "missing": 0, "labels": {"test": label},
        "last": {"test": number}, "first": {}, "bands": {}, "paths": {}, "dots": {},
        "x_ticks": [(scale_x(x), text) for x, text in x_ticks],
        "y_ticks": [(100 - scale_y(y), text) for y, text in y_ticks], "readouts": [],
    }  # fmt: skip


def linear_scale(low, high, integers=False):
    """Returns a linear scale with round ends: a function to percent, and (value, label) ticks."""
    if low == high:
        low, high = min(0, low), max(0, high) or 1
    step = _round_up((high - low) / (8 if integers else 5))
    step = max(step, 1) if integers else step
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    low, high = first * step, high if integers else last * step
    decimals = max(0, -math.floor(math.log10(step)))
    style = "g" if decimals > 5 or high >= 1e6 else f",.{decimals}f"
    ticks = [(i * step, format(i * step, style)) for i in range(first, last + 1)]
    return lambda y: 100 * (y - low) / (high - low), ticks


def log_scale(low, high):
    """Returns a logarithmic scale, as `linear_scale` does."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 100 else (1,)
    bottom, top = math.log10(low) - 0.05, math.log10(high) + 0.05
    marks = [step * 10.0**decade for decade in decades[:: len(decades) // 6 + 1] for step in steps]
    ticks = [(mark, f"{mark:g}") for mark in marks if bottom <= math.log10(mark) <= top]
    # A value that is not above zero here is not finite either, and `_path` leaves it out.
    return lambda y: 100 * ((math.log10(y) if y > 0 else y) - bottom) / (top - bottom), ticks


def _round_up(step):
    """The next of 1, 2, 5, 10, 20, 50, ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def _downsample(points):
    """A line of at most CURVE_POINTS points, and the (lowest, highest) lines around it, or None."""
    if len(points) <= CURVE_POINTS:
        return points, None
    pieces = np.array_split(np.array(points, float), CURVE_POINTS)
    x = [piece[:, 0].mean() for piece in pieces]
    middle, low, high = (
        list(zip(x, (reduce(piece[:, 1]) for piece in pieces), strict=True))
        for reduce in (np.median, np.min, np.max)
    )
    return middle, (low, high)


def _path(points):
    """An SVG path, with a gap where a value is not finite."""
    path, command = [], "M"
    for x, y in points:
        if math.isfinite(y):
            path.append(f"{command}{x:.2f} {y:.2f}")
        command = "L" if math.isfinite(y) else "M"
    return "".join(path)


def _band(low, high):
    """The SVG path of the area between two lines."""
    points = [(x, y) for x, y in [*low, *reversed(high)] if math.isfinite(y)]
    return _path(points) + "Z" if points else ""


def _readouts(curve, end):
    """What hovering shows: a list of {"width": in percent, "x": ..., "lines": {line: value}}."""
    curve = {line: dict(points) for line, points in curve.items()}
    xs = sorted({x for points in curve.values() for x in points})
    xs = xs[:: -(-len(xs) // READOUTS) or 1]
    edges = [0, *((a + b) / 2 for a, b in pairwise(xs)), end]
    return [
        {
            "x": x,
            "width": 100 * (right - left) / end,
            "lines": {line: points[x] for line, points in curve.items() if x in points},
        }
        for x, (left, right) in zip(xs, pairwise(edges), strict=True)
    ]
