"""Measures the sample's test accuracy after the last epoch, over several seeds.

python benchmarks/accuracy.py [--seeds 5] [-c config.json] [key.path=value ...]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main():
    """Prints each run's accuracy and wall time, and their mean and range."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-c", "--config", default="config.json")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    options = parser.parse_intermixed_args()
    accuracies, times = [], []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            settings = [f"seed={seed}", f"training.save_dir={folder}", *options.overrides]
            command = [sys.executable, "train.py", "-c", options.config, *settings]
            began = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began)
            (metrics,) = Path(folder).glob("*/*/metrics.jsonl")
            accuracies.append(json.loads(metrics.read_text().splitlines()[-1])["test_accuracy"])
        print(f"seed {seed}: {accuracies[-1]:.2%} in {times[-1]:.1f} s", flush=True)
    deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    print(f"mean {statistics.mean(accuracies):.2%}, standard deviation {deviation:.2%}, ", end="")
    print(f"from {min(accuracies):.2%} to {max(accuracies):.2%}")
    print(f"wall time: median {statistics.median(times):.1f} s")


if __name__ == "__main__":
    main()
