"""Checks that runs survive kills, interrupts, bad files and bad disks; measures saving's cost.

    python benchmarks/faults.py kills --count 200            at random moments, and during saves
    python benchmarks/faults.py signals --count 20           Ctrl-C and SIGTERM at random moments
    python benchmarks/faults.py checkpoints --count 10000    corrupted in every way
    python benchmarks/faults.py configs --count 2000         changed anywhere
    python benchmarks/faults.py data --count 2000            IDX files and images, corrupted
    python benchmarks/faults.py disks                        full, read-only, removed, slow ...
    python benchmarks/faults.py cost                         of a save, in milliseconds and in speed

Kills, signals and disks are tested on real `train.py` processes: a small network with dropout and
an average of its weights, on the first digits of MNIST. Each command ends with a non-zero exit code
if a promise is broken.
"""

import argparse
import collections
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import faults_cost, faults_disks, faults_files
from benchmarks.faults_common import TIMEOUT, Trial, expect
from training.checkpoint.naming import best, latest, numbered
from training.checkpoint.reading import read
from utils import UserError

WORKERS = 2  # runs at once


def main():
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = {
        "kills": (kills, 200), "signals": (signals, 20),
        "checkpoints": (faults_files.checkpoints, 10_000),
        "configs": (faults_files.configs, 2000), "data": (faults_files.data, 2000),
        "disks": (faults_disks.disks, None), "cost": (faults_cost.cost, None),
    }  # fmt: skip
    parser.add_argument("command", choices=commands)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    command, count = commands[options.command]
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        arguments = [options.count or count] if count else []
        try:
            for name, value in command(Path(folder), *arguments, seed=options.seed).items():
                print(f"{name:<58} {value}")
        except AssertionError as broken:
            print(f"BROKEN: {broken}", file=sys.stderr)
            return 1
    return 0


# Kills -----------------------------------------------------------------------------------------


def kills(folder, count, seed=0, workers=WORKERS):
    """Kills real runs, restarts them by --resume latest, and compares them with one never killed.

    Every second kill waits until a checkpoint is being written.

    Returns:
        {name of a count: number}

    Raises:
        AssertionError: a promise is broken.
    """
    whole = Trial(folder / "whole")
    whole.finish()
    expected = whole.result()
    seconds = Trial(folder / "timed").finish()  # with the compiled functions already cached
    counts, lock = collections.Counter(), threading.Lock()

    def work(worker):
        chance = random.Random(1000 * seed + worker)
        while counts["kills"] < count:
            trial = Trial(folder / f"{worker}-{counts[f'runs of {worker}']}")
            seen = _killed_until_done(trial, chance, seconds, counts, count, lock)
            trial.expect_result(expected)
            with lock:
                counts["runs finished with the same bits"] += 1
                counts[f"runs of {worker}"] += 1
                counts["most kills of one run"] = max(counts["most kills of one run"], seen)

    _run_in_parallel(work, workers)
    for worker in range(workers):
        del counts[f"runs of {worker}"]
    return counts


def _killed_until_done(trial, chance, seconds, counts, count, lock):
    """Kills a run until it is finished or the count is reached; returns the number of kills."""
    kills, leftover = 0, set()
    while True:
        process, trained = trial.start(), trial.started_training()
        during_save = kills % 2 == 0
        if counts["kills"] >= count:
            expect(process.wait(TIMEOUT) == 0, trial.console.read_text()[-2000:])
        elif during_save:
            saves = chance.randint(1, 3)
            for _ in range(saves):  # the file of this save, not of the last
                trial.wait_for(lambda old=leftover: not trial.half_saved() - old, process)
                trial.wait_for(lambda old=leftover: trial.half_saved() - old, process)
            time.sleep(chance.uniform(0, 0.005))
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, seconds))
        acknowledged = numbered(trial.run) if trial.run else []
        process.kill()
        ended = process.wait() == 0
        if trial.started_training() > trained:
            expect(not leftover & trial.half_written(), f"{leftover} left over after a start")
        with lock:
            if not ended:
                kills += 1
                counts["kills"] += 1
                _check_checkpoints(trial, acknowledged, leftover, counts)
        if ended:
            return kills
        leftover = trial.half_written()


def _check_checkpoints(trial, acknowledged, leftover, counts):
    """Counts what a kill has left behind, and reads every checkpoint."""
    if trial.run is None:
        counts["of them before the run folder existed"] += 1
        return
    counts["of them during a save"] += bool(trial.half_saved() - leftover)
    found = numbered(trial.run)
    counts["of them before the first checkpoint"] += not found
    for path in [*found, *filter(None, [best(trial.run)])]:
        try:
            read(path)
        except UserError as error:
            raise AssertionError(f"broken under its final name: {error}") from error
        counts["checkpoints read, all complete"] += 1
    if acknowledged:
        counts["acknowledged checkpoints looked for, all found"] += 1
        expect(acknowledged[-1] in found, f"{acknowledged[-1]} had been saved and is lost")


# Signals ---------------------------------------------------------------------------------------


def signals(folder, count, seed=0):
    """Interrupts a real run at random moments, resumes it each time, and compares the result."""
    epochs = 60 * count
    whole = Trial(folder / "whole", epochs, width=32)
    whole.finish()
    trial, chance = Trial(folder / "interrupted", epochs, width=32), random.Random(seed)
    latencies, exits, interrupts = [], [], 0
    while interrupts < count:
        trained, process = trial.started_training(), trial.start()
        trial.wait_for(lambda trained=trained: trial.started_training() > trained, process)
        time.sleep(chance.uniform(0, 0.8))
        compiled = trial.started_training() > trained + 1
        number = chance.choice([signal.SIGINT, signal.SIGTERM])
        sent = time.time()
        process.send_signal(number)
        code = process.wait(TIMEOUT)
        expect(code == 128 + number, f"exit code {code}, expected {128 + number}")
        if compiled:
            latencies.append(1000 * (latest(trial.run).stat().st_ctime - sent))
        exits.append(1000 * (time.time() - sent))
        interrupts += 1
    trial.finish()
    trial.expect_result(whole.result())
    return {
        "interrupts": interrupts,
        "weights and metrics.jsonl the same to the bit": "yes",
        "of them after the first epoch since the start": len(latencies),
        "ms from those to the saved checkpoint, median": _median(latencies),
        "ms from those to the saved checkpoint, each": sorted(map(round, latencies)),
        "ms from the signal to the process's end, median": _median(exits),
    }


def _median(values):
    return round(statistics.median(values)) if values else "none"


def _run_in_parallel(work, workers):
    """Runs work(0), work(1), ... in threads; raises the first error."""
    errors = []

    def run(worker):
        try:
            work(worker)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


if __name__ == "__main__":
    sys.exit(main())
