"""Measures the time from the process's start until a test accuracy is reached, over several seeds.

    python benchmarks/time_to_accuracy.py [--seeds 5] [--targets 0.985 0.99] [key.path=value ...]

Each process starts with an empty cache of compiled functions, so importing and compiling count. A
target is reached when the log has the first epoch with that test accuracy.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ACCURACY = re.compile(r"Epoch (\d+) \[test\] accuracy @ ([\d.]+)")


def main():
    """Prints for each seed when it reached the targets, and the mean over all seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-c", "--config", default="config.json")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--targets", type=float, nargs="+", default=[0.985, 0.99])
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    options = parser.parse_intermixed_args()
    times = {target: [] for target in options.targets}
    for seed in range(options.first, options.first + options.seeds):
        reached, last = run(options, seed)
        for target, when in reached.items():
            times[target].append(when)
        shown = ", ".join(f"{target:.2%} {_format(when)}" for target, when in reached.items())
        print(f"seed {seed}: {shown}; in the end {last:.2%}", flush=True)
    for target, all_times in times.items():
        reached = [when for when in all_times if when is not None]
        mean = f"mean {statistics.mean(reached):.1f} s, " if reached else ""
        print(f"{target:.2%}: {mean}reached by {len(reached)} of {len(all_times)} seeds")


def run(options, seed):
    """Returns {target: seconds until it was reached, or None} and the last epoch's accuracy."""
    reached, accuracy = dict.fromkeys(options.targets), 0.0
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"seed={seed}", f"training.save_dir={folder}", *options.overrides]
        command = [sys.executable, "train.py", "-c", options.config, *settings]
        environment = os.environ | {"XDG_CACHE_HOME": folder, "PYTHONUNBUFFERED": "1"}
        began = time.perf_counter()
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            for line in process.stdout:
                if found := ACCURACY.search(line):
                    accuracy = float(found[2])
                    for target, when in reached.items():
                        if when is None and accuracy >= target:
                            reached[target] = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return reached, accuracy


def _format(when):
    return "never" if when is None else f"after {when:.1f} s"


if __name__ == "__main__":
    main()
