"""Exports random small networks: each file is to be equal to JAX, or refused with its line.

    python benchmarks/export_random.py --networks 2000
    python benchmarks/export_random.py --networks 200 --kinds onnx      without TensorFlow

Prints the networks whose files are refused, or are not equal, and a count of each. Where a network
computes NaN, infinities or numbers over 10,000 on the way, its files need not be equal: NaN as an
integer, or among sorted numbers, is whatever a runtime makes of it.
"""

import argparse
import collections
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from inference.export.converter import import_tensorflow, tflite_of
from inference.export.network import stablehlo
from inference.export.worker import Worker
from inference.graph.onnx_direct import to_onnx
from inference.verify.equivalence import LIMITS, check
from tests.helpers.random_networks import STEPS, random_network
from utils import UserError

KINDS = ("onnx", "stablehlo", "tflite")
MOST_STEPS = 4  # of a network


def main():
    """Runs the benchmark; exits with 1 if a file is wrong, or refused without its line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        first = import_tensorflow if "tflite" in options.kinds else None
        with Worker(Path(folder, "log"), first) as worker:
            for number, names in enumerate(random_names(options.networks, options.seed)):
                if number % 100 == 0:
                    print(f"{number} of {options.networks}", file=sys.stderr, flush=True)
                try_network(names, Path(folder), worker, options.kinds, counts)
    for verdict, count in sorted(counts.items()):
        print(f"{verdict}: {count}")
    sys.exit(1 if any("error" in verdict for verdict in counts) else 0)


def random_names(count, seed):
    """Yields a list of steps for each network; each step comes about as often as any other."""
    generator, left = random.Random(seed), []
    for _ in range(count):
        length = generator.randint(1, MOST_STEPS)
        while len(left) < length:
            left += generator.sample(sorted(STEPS), len(STEPS))
        yield [left.pop(0) for _ in range(length)]


def try_network(names, folder, worker, kinds, counts):
    """Exports a network, compares its files, and counts the verdicts."""
    made = random_network(names)
    if made is None:
        counts["no network of JAX"] += 1
        return
    network, reference, defined = made
    ways = {
        "onnx": lambda: to_onnx(network),
        "stablehlo": lambda: stablehlo(network),
        "tflite": lambda: tflite_of(network, worker),
    }
    for kind in kinds:
        try:
            path = folder / f"network.{kind}"
            path.write_bytes(ways[kind]())
            broken = check(path, "float32", reference, LIMITS, timed=())["broken"]
            wrong = "error: not equal" if defined else "not equal, not defined"
            verdict, reason = (wrong, broken[0]) if broken else ("equal", "")
        except UserError as error:
            verdict, reason = "refused", str(error)
            verdict = verdict if ".py:" in reason else "error: refused without a line"
        except Exception as error:  # what the benchmark looks for
            verdict, reason = "error: traceback", f"{type(error).__name__}: {error}"
        counts[f"{kind}, {verdict}"] += 1
        if reason and (defined or "error" in verdict):
            print(f"{names}: {kind} {verdict}: {' '.join(reason.split())[:300]}", flush=True)


if __name__ == "__main__":
    main()
