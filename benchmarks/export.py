"""Measures exported files: speed, operators, bytes and errors, compared with jax2onnx + onnxslim.

    python benchmarks/export.py [--jax2onnx PYTHON] [--rounds 31] [--only 0 3]

PYTHON is the interpreter of a virtual environment with jax2onnx, onnxslim and jax: the pins of
jax2onnx conflict with the template's. Without it, its columns are omitted.

Every latency is relative to that of the jitted JAX function, measured in turn in one process on one
core, from NumPy arrays to NumPy arrays; the median of the rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
from export_networks import example_inputs, networks

from inference.export.converter import import_tensorflow, to_raw_onnx, to_tflite
from inference.export.network import Array, describe, lower
from inference.export.worker import Worker
from inference.graph import tflite_graph
from inference.graph.onnx_graph import finish
from inference.verify.runtimes import load

BATCHES = (1, 64)
SECONDS = 0.01  # for the calls of a candidate in each round, at least one
ANY, STATIC, ONNX, PEER = "tflite", "static.tflite", "onnx", "jax2onnx.onnx"  # files' suffixes
TITLES = {ANY: ".tflite", STATIC: "static", ONNX: ".onnx", PEER: "jax2onnx"}


class Measured(NamedTuple):
    """Measurements of one network's files; the keys of the dicts are the files' suffixes."""

    example: object
    operators: dict  # (outside of loops, inside)
    size: dict  # relative to the bytes of the parameters
    error: dict  # the largest, relative to the largest magnitude of the output
    latency: dict  # {(suffix, batch): relative to JAX}


def main():
    """Exports and measures every network; prints tables, and which targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jax2onnx", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--only", type=int, nargs="*", help="indices of networks, from 0")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        examples, seconds = export(Path(folder), options.only)
        if options.jax2onnx:
            command = [options.jax2onnx, "benchmarks/export_jax2onnx.py", folder]
            root = Path(__file__).resolve().parents[1]
            environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
            subprocess.run(command, cwd=root, env=environment, check=True)
        use_one_core()
        measured = [
            measure(example, Path(folder) / str(index), options.rounds)
            for index, example in examples.items()
        ]
    print_tables(measured, PEER if options.jax2onnx else None)
    print(f"\nconversion of the sample, including TensorFlow's import: {seconds:.1f} s")
    print_targets(measured, seconds)


def export(folder, only=None):
    """Exports the networks to files in a folder.

    Returns:
        the networks by index, and the seconds for the first, including TensorFlow's import
    """
    examples = {
        index: example for index, example in enumerate(networks()) if not only or index in only
    }
    seconds, began = None, time.perf_counter()
    with Worker(folder / "log.txt", import_tensorflow) as converter:
        for index, example in examples.items():
            files = convert(converter, example)
            seconds = seconds or time.perf_counter() - began
            for suffix, content in files.items():
                (folder / f"{index}.{suffix}").write_bytes(content)
            static = converter.run(to_tflite, [lower(network_of(example), 1)], names_of(example))
            (folder / f"{index}.{STATIC}").write_bytes(static)
    return examples, seconds


def convert(converter, example):
    """Returns the bytes of the files for any batch size, as the template's command makes them."""
    network = network_of(example)
    tflite = converter.run(to_tflite, [lower(network, 2), lower(network, 3)], network.names)
    return {ANY: tflite, ONNX: finish(converter.run(to_raw_onnx, tflite), network.names)}


def network_of(example):
    """Returns the template's description of a network."""
    inputs = [Array(name, shape, np.dtype(dtype)) for name, shape, dtype in example.inputs]
    return describe(lambda *inputs: example.function(*inputs, params=example.params), inputs)


def names_of(example):
    """Returns the names of a network's inputs and of its outputs."""
    return network_of(example).names


def measure(example, path, rounds):
    """Returns the measurements of one network's files; `path` is without their suffixes."""
    paths = {suffix: Path(f"{path}.{suffix}") for suffix in TITLES}
    paths = {suffix: path for suffix, path in paths.items() if path.exists()}
    params = sum(leaf.nbytes for leaf in jax.tree.leaves(example.params))
    errors, latencies = {}, {}
    for batch in BATCHES:
        inputs = example_inputs(example.inputs, batch)
        runs = {
            suffix: runner(file, example.inputs, inputs)
            for suffix, file in paths.items()
            if suffix != STATIC or batch == 1
        }
        runs[None] = jax_runner(example, inputs)
        expected = runs[None]()
        for suffix, run in runs.items():
            if suffix:
                errors[suffix] = max(errors.get(suffix, 0), scaled_error(run(), expected))
        seconds = time_in_turn(runs, rounds)
        latencies |= {
            (suffix, batch): time / seconds[None] for suffix, time in seconds.items() if suffix
        }
    return Measured(
        example,
        {suffix: count_operators(path) for suffix, path in paths.items()},
        {suffix: path.stat().st_size / params for suffix, path in paths.items()},
        errors,
        latencies,
    )


def jax_runner(example, inputs):
    """Returns a function without arguments that runs the jitted network."""
    function = jax.jit(lambda *inputs: example.function(*inputs, params=example.params))
    return lambda: [np.asarray(leaf) for leaf in jax.tree.leaves(function(*inputs))]


def runner(path, inputs, arrays):
    """Returns a function without arguments that runs a file in its runtime on one thread."""
    loaded = load(path, threads=1)
    names = [name for name, *_ in inputs]
    if set(names) != set(loaded.inputs):
        names = list(loaded.inputs)  # jax2onnx keeps their order, not their names
    arrays = dict(zip(names, arrays, strict=True))
    return lambda: list(loaded.run(arrays).values())


def scaled_error(outputs, expected):
    """Returns the largest difference over the largest magnitude, of the worst output.

    The order of outputs differs between files; each is compared with the output of its shape.
    """
    expected = {array.shape: array for array in expected}
    return max(
        float(np.abs(one - expected[one.shape]).max() / np.abs(expected[one.shape]).max())
        for one in outputs
    )


def time_in_turn(runs, rounds):
    """Returns the median seconds of a call of each function, called in turn."""
    calls = {}
    for name, run in runs.items():
        run()
        began = time.perf_counter()
        run()
        calls[name] = max(1, round(SECONDS / (time.perf_counter() - began)))
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            for _ in range(calls[name]):
                run()
            seconds[name].append((time.perf_counter() - began) / calls[name])
    return {name: statistics.median(times) for name, times in seconds.items()}


def count_operators(path):
    """Returns the number of operators outside and inside the bodies of loops and branches."""
    if path.suffix == ".tflite":
        first, *others = tflite_graph.graphs(tflite_graph.load(path.read_bytes()))
        return len(first.operators), sum(len(graph.operators) for graph in others)
    import onnx

    def count(graph):
        inside = sum(
            count(attribute.g) for node in graph.node for attribute in node.attribute
            if attribute.type == onnx.AttributeProto.GRAPH
        )  # fmt: skip
        return len(graph.node) + inside

    graph = onnx.load(path).graph
    return len(graph.node), count(graph) - len(graph.node)


def use_one_core():
    """Restricts this process and all its threads to one core."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        core = {min(os.sched_getaffinity(0))}
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), core)


def print_tables(measured, peer):
    """Prints latencies, operators, bytes and errors, a row for each network."""
    suffixes = [ANY, STATIC, ONNX] + [peer] * bool(peer)
    print("\nlatency at batch 1 / 64, relative to the jitted JAX function")
    print_row("network", [TITLES[suffix] for suffix in suffixes])
    for one in measured:
        cells = [
            " / ".join(number(one.latency.get((suffix, batch))) for batch in BATCHES)
            for suffix in suffixes
        ]
        print_row(one.example.title, cells)
    print("\noperators + those inside loops; the bound is for ONNX")
    print_row("network", [*(TITLES[suffix] for suffix in suffixes), "bound"])
    for one in measured:
        cells = [operators(one.operators.get(suffix)) for suffix in suffixes]
        print_row(one.example.title, [*cells, f"{one.example.bound} ({one.example.counted})"])
    print("\nbytes relative to the parameters; largest error relative to the largest output")
    suffixes.remove(STATIC)
    print_row("network", [*(TITLES[suffix] for suffix in suffixes)] * 2 + ["parameters"])
    for one in measured:
        sizes = [number(one.size.get(suffix)) for suffix in suffixes]
        errors = [f"{one.error[suffix]:.1e}" if suffix in one.error else "-" for suffix in suffixes]
        print_row(one.example.title, [*sizes, *errors, f"{parameters(one.example):,}"])


def print_row(title, cells):
    """Prints a row of a Markdown table."""
    print(f"| {title:22} | {' | '.join(f'{cell:>13}' for cell in cells)} |")
    if title == "network":
        print(f"|{'---|' * (1 + len(cells))}")


def number(value):
    """Returns a ratio with two decimals, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def operators(counts):
    """Returns "12 + 3": operators outside and inside of loops."""
    return "-" if counts is None else f"{counts[0]}{f' + {counts[1]}' if counts[1] else ''}"


def parameters(example):
    """Returns the number of parameters of a network."""
    return sum(leaf.size for leaf in jax.tree.leaves(example.params))


def print_targets(measured, seconds):
    """Prints the targets, the measurements, and which targets are met."""
    print("\ntargets")
    sample = measured[0]
    if (PEER, 1) in sample.latency:
        for suffix in (ANY, ONNX):
            for batch in BATCHES:
                ratio = sample.latency[suffix, batch] / sample.latency[PEER, batch]
                wanted = 0.5 if (suffix, batch) == (ONNX, 1) else 1
                print_target(f"sample: {TITLES[suffix]} / jax2onnx, batch {batch}", ratio, wanted)
    print_target("networks without an .onnx file", sum(ONNX not in one.size for one in measured), 0)
    for one in measured:
        title = one.example.title
        for batch in BATCHES:
            if (PEER, batch) in one.latency:
                ratio = one.latency[ONNX, batch] / one.latency[PEER, batch]
                print_target(f"{title}: .onnx / jax2onnx, batch {batch}", ratio, 1.1)
        print_target(f"{title}: operators / bound", one.operators[ONNX][0] / one.example.bound, 1.5)
        ratio = one.latency[ANY, 1] / one.latency[STATIC, 1]
        print_target(f"{title}: .tflite / static, batch 1", ratio, 1.2)
        if parameters(one.example) > 50_000:
            print_target(f"{title}: bytes of .onnx / parameters", one.size[ONNX], 1.1)
            print_target(f"{title}: bytes of .tflite / parameters", one.size[ANY], 1.4)
    print_target("conversion of the sample, in seconds", seconds, 30)


def print_target(what, value, limit):
    """Prints whether a target is met."""
    print(f"{'met' if value <= limit else 'NOT met':7} {what}: {value:.2f}, wanted {limit} or less")


if __name__ == "__main__":
    main()
