"""The inputs that files are compared on besides the test set: anything that a network may be given.

Random numbers like those of the data say nothing of a remainder's sign, or of a mask's last
position. So each input has a span: of integers all that have a meaning (declared by the data set
as `ranges`, asked for by --range, or else all that the dtype and the network's tables allow); of
real numbers those of the data, their extremes, 0, and ten times the extremes.
"""

from typing import NamedTuple

import jax
import numpy as np

from inference.graph.index_ranges import index_ranges
from utils import UserError, nearest

BATCHES = (1, 2, 3, 64)  # of random inputs, besides one more than the test set's batch
EDGE_EXAMPLES = 3
FAR = "far beyond the data"
BEYOND = 10  # "large" numbers are so many times the data's extremes


class Span(NamedTuple):
    """What an input may be, and what it is in the data."""

    name: str
    shape: tuple  # without the batch
    dtype: np.dtype
    low: float  # the lowest and highest that the files are tried with
    high: float
    lowest: float  # the lowest and highest of the data
    highest: float
    mean: float
    std: float


def find_spans(function, inputs, batches, declared):
    """Returns the Span of each input.

    Args:
        function: `(*inputs) -> outputs`.
        inputs: Array of each, as the function takes them.
        batches: tuples of arrays: the test set, and some of the training data; or none.
        declared: {name: (lowest, highest)}, of some.

    Raises:
        UserError: a range has no input, or the data are not within it.
    """
    shapes = [jax.ShapeDtypeStruct((2, *one.shape), one.dtype) for one in inputs]
    names = [one.name for one in inputs]
    for name in set(declared) - set(names):
        raise UserError(f"--range: no input is called {name!r}{nearest(name, names)}")
    indices = index_ranges(function, *shapes)
    spans = []
    for at, (one, rows) in enumerate(zip(inputs, indices, strict=True)):
        data = [batch[at] for batch in batches]
        spans.append(_span(one, data, rows, declared.get(one.name)))
    return spans


def random_inputs(spans, batch, seed=0):
    """Returns a batch of inputs like those of the data."""
    random = np.random.default_rng(seed)
    return tuple(_random(random, one, batch) for one in spans)


def edge_inputs(spans, seed=1):
    """Returns {what they are: a batch of inputs} beyond those of the data."""
    random = np.random.default_rng(seed)
    found = {}
    if any(one.dtype.kind == "f" for one in spans):
        for name in ("zeros", "smallest", "largest", FAR):
            found[name] = tuple(_edge(random, one, name) for one in spans)
    if any(one.dtype.kind in "iu" for one in spans):
        found["integers of the whole range"] = tuple(
            _whole_range(random, one, max(BATCHES)) for one in spans
        )
        found["ends of the integers' range"] = tuple(
            _ends(random, one, max(BATCHES)) for one in spans
        )
    return found


def nearby(inputs, seed=2):
    """Returns the inputs with real numbers changed in their last bits."""
    random = np.random.default_rng(seed)
    return tuple(
        (one * (1 + random.choice([-1, 1], one.shape) * 2.0**-22)).astype(one.dtype)
        if one.dtype.kind == "f"
        else one
        for one in inputs
    )


def _span(one, data, rows, declared):
    """The Span of one input, an Array; `rows` is what the network's tables allow."""
    dtype, real = np.dtype(one.dtype), np.dtype(one.dtype).kind == "f"
    numbers = [part[np.isfinite(part)] for part in data]
    numbers = np.concatenate([part.reshape(-1) for part in numbers]) if numbers else np.zeros(0)
    if dtype.kind == "b":
        return Span(one.name, one.shape, dtype, 0, 1, 0, 1, 0.5, 0.5)
    limits = np.finfo(dtype) if real else np.iinfo(dtype)
    low, high = declared or (None if real else rows) or (limits.min, limits.max)
    low, high = max(low, limits.min), min(high, limits.max)
    if not real:
        low, high = int(low), int(high)
    if not numbers.size:
        ends = (-3.0, 3.0) if real and not declared else (low, high)
        lowest, highest, mean, std = *ends, 0.0, 1.0
    else:
        lowest, highest = numbers.min().item(), numbers.max().item()
        mean, std = (float(numbers.mean()), float(numbers.std())) if real else (0.0, 0.0)
    if low > high or lowest < low or highest > high:
        raise UserError(
            f"the input {one.name} is from {lowest:g} to {highest:g} in the data, beyond the "
            f"{low:g} to {high:g} that "
            + ("are asked for" if declared else "its dtype and the network's tables allow")
        )
    if real and declared:
        lowest, highest = low, high
    elif real:
        bound = BEYOND * max(abs(lowest), abs(highest), 1e-30)
        low, high = -bound, bound
    return Span(one.name, one.shape, dtype, low, high, lowest, highest, mean, std)


def _random(random, span, batch):
    """A batch like the data; of all integers that have a meaning, if they are not many more."""
    shape = (batch, *span.shape)
    if span.dtype.kind == "f":
        values = np.clip(span.mean + span.std * random.normal(size=shape), span.low, span.high)
        return values.astype(span.dtype)
    low, high = span.low, span.high
    if high - low > 4 * (span.highest - span.lowest + 8):
        low, high = span.lowest, span.highest
    return random.integers(low, high, shape, endpoint=True).astype(span.dtype)


def _edge(random, span, name):
    """A small batch of one edge of the real numbers; integers are like the data."""
    shape = (EDGE_EXAMPLES, *span.shape)
    if span.dtype.kind != "f":
        return _random(random, span, EDGE_EXAMPLES)
    if name == FAR:
        return random.choice([span.low, span.high], shape).astype(span.dtype)
    value = {"zeros": 0.0, "smallest": span.lowest, "largest": span.highest}[name]
    return np.full(shape, np.clip(value, span.low, span.high), span.dtype)


def _whole_range(random, span, batch):
    """A batch of integers of the whole range, those near the data more often."""
    if span.dtype.kind not in "iu":
        return _random(random, span, batch)
    shape, low, high = (batch, *span.shape), int(span.low), int(span.high)
    far = 2.0 ** random.uniform(0, max(1.0, np.log2(high - low + 1.0)), shape)
    near = np.where(random.random(shape) < 0.5, span.lowest - far, span.highest + far)
    anywhere = random.integers(low, high, shape, endpoint=True)
    inside = (near >= low) & (near <= high) & (random.random(shape) < 0.7)
    return np.where(inside, np.where(inside, near, 0).astype(np.int64), anywhere).astype(span.dtype)


def _ends(random, span, batch):
    """A batch of the integers at the ends of the range, of the data, and around 0."""
    if span.dtype.kind not in "iu":
        return _random(random, span, batch)
    low, high = int(span.low), int(span.high)
    ends = {low, low + 1, high - 1, high, int(span.lowest), int(span.highest), -1, 0, 1}
    ends = np.array(sorted(one for one in ends if low <= one <= high))
    values = random.choice(ends, (batch, *span.shape))
    count = min(len(ends), batch)  # whole examples of one end as well
    values[:count] = ends[:count].reshape(-1, *[1] * len(span.shape))
    return values.astype(span.dtype)
