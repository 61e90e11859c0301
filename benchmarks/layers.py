"""Measures each form of a convolution over XLA's own operator, forward and backward.

    python benchmarks/layers.py [ordinary] [banded] [depthwise] [grouped] [patches] [compiling]

Prints a line for each shape: the time of XLA's operator, and the times of the other forms relative
to it. An asterisk marks the form that model/modules/operators.py chooses. All are compiled with the
options of training (training/engine/compilation.py); ordinary convolutions also with XLA's default
options. `compiling` is the time to trace and compile the sample's update with the chosen forms, and
with XLA's operators only.
"""

import argparse
import contextlib
import statistics
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax

from model.modules import operators
from model.modules.forms import convolution
from model.modules.forms.shifted import shifted_convolve
from training.config import read_config
from training.engine.build import build
from training.engine.compilation import FAST, keep_freed_memory
from training.engine.initialize import first_batch

ELEMENTS = 2**20  # of the image with its batch, about
COMPILATIONS = 7  # of each
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
# (height = width, channels, kernel, features)
BANDED = [
    (28, 1, 5, 10), (12, 10, 5, 20), (14, 6, 5, 16), (28, 1, 3, 32), (32, 3, 3, 64), (28, 4, 3, 8),
    (28, 8, 3, 16), (14, 16, 5, 32),
]  # fmt: skip
# (height = width, channels, kernel, stride, features); the first two are LeNet's
ORDINARY = [
    (28, 1, 5, 1, 10), (12, 10, 5, 1, 20), (28, 1, 3, 1, 32), (32, 3, 3, 1, 16), (32, 3, 5, 1, 32),
    (64, 3, 7, 2, 64), (28, 32, 3, 1, 32), (28, 32, 3, 2, 64), (14, 64, 3, 1, 128),
    (7, 128, 3, 1, 256),
]  # fmt: skip


def main():
    """Prints the requested tables, or all."""
    tables = {
        "ordinary": ordinary, "banded": banded, "depthwise": depthwise, "grouped": grouped,
        "patches": patches, "compiling": compiling,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="table", help=", ".join(tables))
    options = parser.parse_args()
    keep_freed_memory()
    for name in options.tables or tables:
        if name not in tables:
            parser.error(f"no table {name!r}; there are {', '.join(tables)}")
        tables[name]()


def depthwise():
    """Prints the table of depthwise convolutions."""
    print("| depthwise | plain, ms | dense | shifted |\n|---|---|---|---|")
    for size, channels, kernel, stride in DEPTHWISE:
        forms = {"dense": convolution.dense_convolve, "shifted": shifted_convolve}
        if size * size > DENSE_PIXELS:
            del forms["dense"]
        line(f"kernel {kernel}, stride {stride}", size, channels, kernel, stride, channels, forms)


def grouped():
    """Prints the table of convolutions of groups of channels."""
    print("| groups | plain, ms | expanded |\n|---|---|---|")
    for size, channels, kernel, groups in GROUPED:
        forms = {"expanded": partial(convolution.expanded_convolve, groups=groups)}
        line(f"kernel {kernel}, {groups} groups", size, channels, kernel, 1, groups, forms)


def patches():
    """Prints the table of windows that do not overlap."""
    print("| patches | plain, ms | patches |\n|---|---|---|")

    def form(x, kernel, stride, padding):
        return convolution.patches_convolve(x, kernel, padding)

    for size, channels, kernel, features in PATCHES:
        name = f"kernel = stride {kernel}, {features} features"
        line(name, size, channels, kernel, kernel, 1, {"patches": form}, features, 0)


def banded():
    """Prints the table of few channels."""
    print("| few channels | plain, ms | banded |\n|---|---|---|")
    for size, channels, kernel, features in BANDED:
        name, forms = (
            f"kernel {kernel}, {features} features",
            {"banded": convolution.banded_convolve},
        )
        line(name, size, channels, kernel, 1, 1, forms, features, 0)


def ordinary():
    """Prints the table of XLA's own operator; a first layer needs only the kernel's gradient."""
    print(
        "| ordinary | by default, ms | in training | by default, kernel's alone, ms | in training |"
    )
    print("|---|---|---|---|---|")
    for size, channels, kernel, stride, features in ORDINARY:
        x, weights = operands(size, channels, kernel, channels, features)
        padding = (kernel // 2, kernel // 2)
        settings = {"stride": (stride, stride), "padding": (padding, padding), "groups": 1}
        form = partial(convolution.plain_convolve, **settings)
        shown = []
        for alone in (False, True):
            runs = [
                with_gradients(form, x, weights, options, alone) for options in (None, FAST["cpu"])
            ]
            default, ours = timed(runs)
            shown.append(f"{1000 * default:.2f} | {ours / default:.2f}")
        name = f"kernel {kernel}, stride {stride}, {features} features"
        shape = " x ".join(map(str, x.shape))
        print(f"| {shape}, {name} |", " | ".join(shown), "|", flush=True)


def compiling():
    """Times compiling the sample's update, in turn with the chosen forms and XLA's operators."""
    experiment = build(read_config("config.json"))
    batch = jax.device_put(first_batch(experiment))
    state, times = experiment.init(batch), []
    for _ in range(COMPILATIONS):
        times.append([])
        for context in (contextlib.nullcontext, operators.plain_operators):
            jax.clear_caches()
            began = time.perf_counter()
            with context():
                experiment.update.lower(state, batch).compile()
            times[-1].append(time.perf_counter() - began)
    ours, plain = (statistics.median(spent) for spent in zip(*times, strict=True))
    over = statistics.median(ours / plain for ours, plain in times)
    print(f"to trace and compile: {ours:.2f} s, XLA's operators alone {plain:.2f} s, {over:.2f}")


def line(name, size, channels, kernel, stride, groups, forms, features=None, padding=None):
    """Prints the times for a shape; the default padding is "SAME"."""
    features = features or channels
    x, weights = operands(size, channels, kernel, channels // groups, features)
    padding = kernel // 2 if padding is None else padding
    settings = {"stride": (stride, stride), "padding": ((padding, padding),) * 2}
    plain = partial(convolution.plain_convolve, groups=groups)
    tried = [partial(form, **settings) for form in (plain, *forms.values())]
    plain, *times = timed([with_gradients(form, x, weights) for form in tried])
    chosen = operators.form_on_cpu(x.shape, weights.shape, (stride, stride), groups)
    shown = []
    for form, seconds in zip(forms.values(), times, strict=True):
        is_chosen = getattr(form, "func", form) is getattr(chosen, "func", chosen)
        shown.append(f"{seconds / plain:.3f}" + "*" * (is_chosen or list(forms) == ["patches"]))
    shown += ["-"] * ("shifted" in forms and "dense" not in forms)
    if "dense" not in forms:
        shown.reverse()
    shape = " x ".join(map(str, x.shape))
    print(f"| {shape}, {name} | {1000 * plain:.2f} |", " | ".join(shown), "|", flush=True)


def operands(size, channels, kernel, channels_in, features):
    """Returns a batch of images and a kernel, of random numbers."""
    batch = max(1, ELEMENTS // (size * size * channels))
    x = jax.random.normal(jax.random.key(0), (batch, size, size, channels))
    return x, jax.random.normal(jax.random.key(1), (kernel, kernel, channels_in, features))


def with_gradients(form, x, kernel, options=FAST["cpu"], alone=False):
    """Returns a function without arguments that computes a form's gradients, or the kernel's."""

    @partial(jax.jit, compiler_options=options)
    def run(x, kernel):
        if alone:
            y, pull_back = jax.vjp(lambda kernel: form(x, kernel), kernel)
        else:
            y, pull_back = jax.vjp(form, x, kernel)
        return pull_back(y)

    return lambda: jax.block_until_ready(run(x, kernel))


def timed(runs):
    """Returns the median seconds of each function, called in turn."""
    for run in runs:
        run()
    times, end = [[] for _ in runs], time.perf_counter() + SECONDS
    while len(times[0]) < 3 or time.perf_counter() < end:
        for run, spent in zip(runs, times, strict=True):
            began = time.perf_counter()
            run()
            spent.append(time.perf_counter() - began)
    return [statistics.median(spent) for spent in times]


if __name__ == "__main__":
    main()
