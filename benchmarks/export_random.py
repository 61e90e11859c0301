"""Exports random small networks: each file is to be equal to JAX, or refused with its line.

    python benchmarks/export_random.py --networks 2000
    python benchmarks/export_random.py --networks 200 --only-onnx     without TensorFlow

Prints the networks whose files are refused, or are not equal, and a count of each. A network that
divides by 0, or takes roots of negative numbers, may well be rejected: NaN as an integer, or among
sorted numbers, is whatever a runtime makes of it.
"""

import argparse
import collections
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np

from inference.export.converter import import_tensorflow, to_tflite
from inference.export.network import Array, describe, lower
from inference.export.worker import Worker
from inference.graph.onnx_direct import to_onnx
from inference.verify.equivalence import LIMITS, check, make_reference
from tests.helpers.random_networks import random_network
from utils import UserError


def main():
    """Runs the benchmark; exits with 1 if a network ended in another error than a refusal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=2000)
    parser.add_argument("--only-onnx", action="store_true")
    options = parser.parse_args()
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with Worker(log, None if options.only_onnx else import_tensorflow) as worker:
            for seed in range(options.networks):
                try_network(seed, Path(folder), None if options.only_onnx else worker, counts)
    for verdict, count in sorted(counts.items()):
        print(f"{verdict}: {count}")
    sys.exit(1 if any("error" in verdict for verdict in counts) else 0)


def try_network(seed, folder, worker, counts):
    """Exports a network, compares its files, and counts the verdicts."""
    words, function = random_network(seed)
    try:
        network = describe(function, [Array("x", (4, 5), np.dtype(np.float32))])
        reference = make_reference(jax.jit(network.function), lambda *raw: raw, network, [], None)
    except (UserError, TypeError, ValueError, IndexError):
        counts["no network of JAX"] += 1
        return
    ways = {"onnx": lambda: to_onnx(network)}
    if worker:
        ways["tflite"] = lambda: worker.run(
            to_tflite, [lower(network, 2), lower(network, 3)], network.names
        )
    for suffix, make in ways.items():
        try:
            path = folder / f"network.{suffix}"
            path.write_bytes(make())
            broken = check(path, "float32", reference, LIMITS)["broken"]
            verdict, reason = ("not equal", broken[0]) if broken else ("equal", "")
        except UserError as error:
            verdict, reason = "refused", str(error)
            verdict = verdict if ".py:" in reason else "error: refused without a line"
        except Exception as error:  # what the benchmark looks for
            verdict, reason = "error: traceback", f"{type(error).__name__}: {error}"
        counts[f"{suffix}, {verdict}"] += 1
        if reason:
            print(f"{seed}: {words}: {suffix} {verdict}: {reason[:200]}", flush=True)


if __name__ == "__main__":
    main()
