"""Measures how long a start takes: from the process's start to the end of the first update.

    python benchmarks/start.py [--rounds 5] [-c config.json] [key.path=value ...]

A cold start has an empty cache of compiled functions, a warm start the cache of the cold one. With
a log interval of 1 the first update's line is printed after the second has been dispatched, so the
result is too large by about one update.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main():
    """Prints the seconds of each round's cold and warm start, and their medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-c", "--config", default="config.json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    options = parser.parse_intermixed_args()
    pairs = []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            pair = [first_update(options, folder) for _ in ("cold", "warm")]
        pairs.append(pair)
        print(f"round {number + 1}: cold {pair[0]:.2f} s, warm {pair[1]:.2f} s", flush=True)
    cold, warm = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"median: cold {cold:.2f} s, warm {warm:.2f} s")


def first_update(options, folder):
    """Returns the seconds until a run in `folder` has logged its first update."""
    settings = ["training.log_every=1", "training.epochs=1", f"training.save_dir={folder}"]
    command = [sys.executable, "train.py", "-c", options.config, *settings, *options.overrides]
    environment = os.environ | {"XDG_CACHE_HOME": folder, "PYTHONUNBUFFERED": "1"}
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if " [0/" in line:
                seconds = time.perf_counter() - began
                break
        else:
            raise SystemExit(f"{' '.join(command)} ended without an update")
        process.stdout.read()  # until it ends, so that it writes its compiled functions
    return seconds


if __name__ == "__main__":
    main()
