"""Each form of a convolution over XLA's own operator: forward and backward, on this machine.

    python benchmarks/layers.py [depthwise] [grouped] [patches]

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
SECONDS = 0.5  # for each measurement, about
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


def main():
    """Prints the tables that are asked for."""
    tables = {"depthwise": depthwise, "grouped": grouped, "patches": patches}
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


def line(name, size, channels, kernel, stride, groups, forms, features=None, padding=None):
    """Prints the times for a shape; "SAME" padding unless told otherwise."""
    batch = max(1, ELEMENTS // (size * size * channels))
    features = features or channels
    x = jax.random.normal(jax.random.key(0), (batch, size, size, channels))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, channels // groups, features))
    padding = kernel // 2 if padding is None else padding
    settings = {"stride": (stride, stride), "padding": ((padding, padding),) * 2}
    plain = timed(partial(operators._plain_convolve, groups=groups, **settings), x, weights)
    form = operators._form_on_cpu(x.shape, weights.shape, *settings.values(), groups)
    chosen = form or operators._plain_convolve
    shown = []
    for form in forms.values():
        is_chosen = getattr(form, "func", form) is getattr(chosen, "func", chosen)
        ratio = timed(partial(form, **settings), x, weights) / plain
        shown.append(f"{ratio:.3f}" + "*" * (is_chosen or list(forms) == ["patches"]))
    shown += ["-"] * ("shifted" in forms and "dense" not in forms)
    if "dense" not in forms:
        shown.reverse()
    print(f"| {batch} x {size} x {size} x {channels}, {name} | {1000 * plain:.2f} |",
          " | ".join(shown), "|", flush=True)  # fmt: skip


def timed(form, x, kernel):
    """Returns the median seconds of a form and its gradients."""

    @jax.jit
    def run(x, kernel):
        y, pull_back = jax.vjp(lambda x, kernel: form(x, kernel), x, kernel)
        return pull_back(y)

    jax.block_until_ready(run(x, kernel))
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        jax.block_until_ready(run(x, kernel))
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
