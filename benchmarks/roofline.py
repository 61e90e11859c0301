"""Measures the update's time over its roofline on this machine.

    python benchmarks/roofline.py [--rounds 9] [-c config.json] [key.path=value ...]

It measures in turn, in one process: the update; the sum of two arrays of 64 MiB into an existing
one, for the memory's bandwidth; a product of two matrices, for the arithmetic rate. XLA reports how
many bytes the compiled update reads and writes between its kernels, and its number of operations.
The roofline is the longer of the two times that these would take.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp

from training.config import read_config
from training.engine.build import build
from training.engine.compilation import keep_freed_memory
from training.engine.initialize import first_batch

FLOATS = 2**24  # of an array for the bandwidth, 64 MiB: larger than any cache
SIZE = 1536  # rows and columns of the matrices
REPEATS = 5  # of each in a round


def main():
    """Prints the measurements of each round, and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-c", "--config", default="config.json")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    options = parser.parse_intermixed_args()
    keep_freed_memory()
    experiment = build(read_config(options.config, options.overrides), options.config)
    batch = jax.device_put(first_batch(experiment))
    state = experiment.init(batch)
    cost = experiment.update.lower(state, batch).compile().cost_analysis()
    moved, operations = cost["bytes accessed"], cost["flops"]
    print(f"the update: {moved / 1e6:.0f} MB, {operations / 1e6:.0f} M operations")

    add = jax.jit(lambda total, x: total + x, donate_argnums=0)  # in place: no new pages
    multiply = jax.jit(jnp.matmul)
    total, x, matrix = jnp.ones(FLOATS), jnp.ones(FLOATS), jnp.ones((SIZE, SIZE))
    ratios = []
    for number in range(options.rounds + 1):
        state, update = timed(lambda state: experiment.update(state, batch)[0], state)
        total, adding = timed(lambda total: add(total, x), total)
        _, product = timed(lambda _: multiply(matrix, matrix), None)
        bandwidth, rate = 3 * 4 * FLOATS / adding, 2 * SIZE**3 / product
        ratio = update / max(moved / bandwidth, operations / rate)
        if number > 0:  # the first compiles
            ratios.append(ratio)
            print(
                f"update {1000 * update:.1f} ms, memory {bandwidth / 1e9:.1f} GB/s, "
                f"arithmetic {rate / 1e9:.0f} G/s: {ratio:.2f}",
                flush=True,
            )
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"update over the roofline: median {statistics.median(ratios):.2f} ({spread})")


def timed(function, value):
    """Applies a function to a value repeatedly; returns the result, and the median seconds."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        value = jax.block_until_ready(function(value))
        times.append(time.perf_counter() - began)
    return value, statistics.median(times)


if __name__ == "__main__":
    main()
