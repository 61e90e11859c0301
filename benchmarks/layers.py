"""Each form of a convolution over XLA's own operator: forward and backward, on this machine.

    python benchmarks/layers.py [depthwise] [grouped] [patches] [rows]

A line for each shape: what XLA's operator takes, and the time of every other form in its. An
asterisk marks what model/modules/operators.py chooses.
"""

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax

from model.modules import operators

ELEMENTS = 2**20  # of the image with its batch, about
SECONDS = 1  # for the forms of a line together, about
DENSE_PIXELS = 28 * 28  # larger dense matrices take minutes
# (height = width, channels, kernel, stride)
DEPTHWISE = [
    *((7, channels, 7, 1) for channels in (8, 64, 384)),
    *((7, 64, kernel, 1) for kernel in (3, 5)),
    (10, 16, 7, 1), (10, 16, 3, 1), (14, 16, 3, 1), (14, 64, 5, 1), (14, 64, 7, 1), (14, 64, 7, 2),
    (28, 32, 3, 1), (28, 32, 7, 1), (28, 32, 7, 2), (28, 384, 3, 1), (64, 8, 3, 1), (64, 8, 3, 2),
    (64, 32, 7, 1),
]  # fmt: skip
# (height = width, channels, kernel, groups)
GROUPED = [(14, 64, 3, 2), (14, 64, 3, 8), (14, 64, 3, 32), (7, 256, 3, 32), (28, 64, 3, 4)]
# (height = width, channels, kernel = stride, features)
PATCHES = [(28, 1, 4, 8), (28, 1, 7, 64), (8, 8, 2, 16), (64, 3, 16, 384), (14, 64, 1, 128)]

# (height = width, channels, kernel, stride, features); the first are LeNet's
ROWS = [
    (28, 1, 5, 1, 10), (12, 10, 5, 1, 20), (14, 6, 5, 1, 16), (28, 1, 3, 1, 32), (32, 3, 3, 1, 16),
    (32, 3, 5, 1, 32), (64, 3, 7, 2, 64), (12, 12, 3, 1, 12), (10, 16, 3, 1, 16),
]  # fmt: skip


def main():
    """Prints the tables that are asked for."""
    tables = {"depthwise": depthwise, "grouped": grouped, "patches": patches, "rows": rows}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="table", help=", ".join(tables))
    options = parser.parse_args()
    for name in options.tables or tables:
        if name not in tables:
            parser.error(f"no table {name!r}; there are {', '.join(tables)}")
        tables[name]()


def depthwise():
    """Channels by themselves."""
    print("| depthwise | plain, ms | dense | shifted |\n|---|---|---|---|")
    for size, channels, kernel, stride in DEPTHWISE:
        forms = {"dense": operators._dense_convolve, "shifted": operators._shifted_convolve}
        if size * size > DENSE_PIXELS:
            del forms["dense"]
        line(f"kernel {kernel}, stride {stride}", size, channels, kernel, stride, channels, forms)


def grouped():
    """Channels in groups."""
    print("| groups | plain, ms | expanded |\n|---|---|---|")
    for size, channels, kernel, groups in GROUPED:
        forms = {"expanded": partial(operators._expanded_convolve, groups=groups)}
        line(f"kernel {kernel}, {groups} groups", size, channels, kernel, 1, groups, forms)


def patches():
    """Windows that do not overlap."""
    print("| patches | plain, ms | patches |\n|---|---|---|")

    def form(x, kernel, stride, padding):
        return operators._patches_convolve(x, kernel, padding)

    for size, channels, kernel, features in PATCHES:
        name = f"kernel = stride {kernel}, {features} features"
        line(name, size, channels, kernel, kernel, 1, {"patches": form}, features, 0)


def rows():
    """Few channels, not in groups."""
    print("| rows | plain, ms | rows |\n|---|---|---|")
    for size, channels, kernel, stride, features in ROWS:
        name = f"kernel {kernel}, stride {stride}, {features} features"
        line(name, size, channels, kernel, stride, 1, {"rows": operators._rows_convolve}, features)


def line(name, size, channels, kernel, stride, groups, forms, features=None, padding=None):
    """Prints the times for a shape; "SAME" padding unless told otherwise."""
    batch = max(1, ELEMENTS // (size * size * channels))
    features = features or channels
    x = jax.random.normal(jax.random.key(0), (batch, size, size, channels))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, channels // groups, features))
    padding = kernel // 2 if padding is None else padding
    settings = {"stride": (stride, stride), "padding": ((padding, padding),) * 2}
    plain = partial(operators._plain_convolve, groups=groups)
    tried = [partial(form, **settings) for form in (plain, *forms.values())]
    plain, *times = timed(tried, x, weights)
    form = operators._form_on_cpu(x.shape, weights.shape, *settings.values(), groups)
    chosen = form or operators._plain_convolve
    shown = []
    for form, seconds in zip(forms.values(), times, strict=True):
        is_chosen = getattr(form, "func", form) is getattr(chosen, "func", chosen)
        shown.append(f"{seconds / plain:.3f}" + "*" * (is_chosen or list(forms) == ["patches"]))
    shown += ["-"] * ("shifted" in forms and "dense" not in forms)
    if "dense" not in forms:
        shown.reverse()
    print(f"| {batch} x {size} x {size} x {channels}, {name} | {1000 * plain:.2f} |",
          " | ".join(shown), "|", flush=True)  # fmt: skip


def timed(forms, x, kernel):
    """Returns the median seconds of each form with its gradients, called in turn."""

    def with_gradients(form):
        @jax.jit
        def run(x, kernel):
            y, pull_back = jax.vjp(form, x, kernel)
            return pull_back(y)

        jax.block_until_ready(run(x, kernel))
        return run

    runs, end = [with_gradients(form) for form in forms], time.perf_counter() + SECONDS
    times = [[] for _ in runs]
    while len(times[0]) < 3 or time.perf_counter() < end:
        for run, spent in zip(runs, times, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(run(x, kernel))
            spent.append(time.perf_counter() - began)
    return [statistics.median(spent) for spent in times]


if __name__ == "__main__":
    main()
