"""Files that somebody else has made, thousands of each kind: each is used, or refused in words.

python benchmarks/hostile.py [--kinds checkpoints exports ...] [--scale 1.0]

Prints for each kind how many were used and refused, the slowest and the most memory. Any other end,
a traceback or a crash, is a failure; the seed that made the file is printed.
"""

import argparse
import json
import logging
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers.hostile import KINDS
from utils import UserError

SLOWEST, MEMORY = 2, 200  # seconds for a file; MB above what the imports take


def run(kind, first, count, queue):
    """Opens `count` files of a kind in this process, the seeds from `first` on."""
    logging.disable()
    make = KINDS[kind].make
    with tempfile.TemporaryDirectory() as folder:
        open_file = make(Path(folder))
        open_file(None)  # imports, and a file that nobody has changed
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        ends, slowest = Counter(), 0.0
        for seed in range(first, first + count):
            queue.put(("seed", seed))
            start = time.perf_counter()
            try:
                open_file(seed)
                ends["used"] += 1
            except UserError as error:
                ends["refused"] += 1
                if len(str(error)) > 5000:
                    ends["long messages"] += 1
            except Exception as error:
                ends["FAILED"] += 1
                queue.put(("failure", f"{kind} {seed}: {type(error).__name__}: {error}"[:300]))
            slowest = max(slowest, time.perf_counter() - start)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 - before
        queue.put(("end", (dict(ends), slowest, memory)))


def measure(kind, count):
    """Opens `count` files of a kind in another process; returns (ends, slowest, memory, faults)."""
    queue = multiprocessing.get_context("spawn").Queue()
    process = multiprocessing.get_context("spawn").Process(target=run, args=(kind, 0, count, queue))
    process.start()
    faults, seed = [], None
    while True:
        try:
            what, value = queue.get(timeout=1)
        except Exception:  # queue.Empty
            if process.is_alive():
                continue
            return {"CRASHED": 1}, 0, 0, [f"{kind} {seed}: exit code {process.exitcode}"]
        if what == "seed":
            seed = value
        elif what == "failure":
            faults.append(value)
        else:
            process.join()
            return *value, faults


def main():
    """Prints a line for each kind; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of files")
    options = parser.parse_args()
    good = True
    for kind in options.kinds:
        count = max(1, round(KINDS[kind].count * options.scale))
        ends, slowest, memory, faults = measure(kind, count)
        within = slowest < SLOWEST and memory < MEMORY and not faults
        good = good and within
        print(f"{kind:<12} {count:>6} files: {json.dumps(ends)}, slowest {slowest:.2f} s, "
              f"{memory:.0f} MB{'' if within else '  BEYOND'}", flush=True)  # fmt: skip
        for fault in faults[:5]:
            print(f"    {fault}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
