"""What a run survives, kills, interrupts, bad files and bad disks, and what saving costs.

    python benchmarks/faults.py kills --count 200            at random moments, and in mid-save
    python benchmarks/faults.py signals --count 20           Ctrl-C and SIGTERM at random moments
    python benchmarks/faults.py checkpoints --count 10000    corrupted in every way
    python benchmarks/faults.py configs --count 2000         changed anywhere
    python benchmarks/faults.py data --count 2000            IDX files and pictures, corrupted
    python benchmarks/faults.py disks                        full, read-only, forbidden, gone, slow
    python benchmarks/faults.py cost                         of a save, in time and in speed

Kills, signals and disks are those of real `train.py` processes: a small network with dropout and an
average of its weights, on the first digits of MNIST. Each command ends non-zero if anything was
not as promised.
"""

import argparse
import collections
import contextlib
import gzip
import json
import os
import random
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks import faults_cost, faults_disks, faults_files  # noqa: E402
from training.checkpoint.naming import best, latest, numbered  # noqa: E402
from training.checkpoint.reading import read
from utils import UserError  # noqa: E402

WORKERS = 2  # runs at once
POLL = 0.0005  # seconds between two looks at a run folder
PATIENCE = 120  # seconds for what takes a few
COMMAND = (sys.executable, ROOT / "train.py")
EXAMPLES = {"train": 640, "t10k": 200}


class Trial:
    """A run in a folder of its own, to be started, ended by force and started again.

    Args:
        folder: an empty folder.
        epochs: of the run.
        width: features of the network's hidden layer; 1,000 make checkpoints of 13 MB.
        overrides: "key.path=value" of the config.
    """

    def __init__(self, folder, epochs=12, width=400, overrides=()):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_digits(self.folder / "data")
        config = _config(self.folder / "data", epochs, width)
        (self.folder / "config.json").write_text(json.dumps(config))
        self.overrides, self.console = list(overrides), self.folder / "console"
        self.console.touch()
        self._run = None

    @property
    def run(self):
        """The run folder, or None before it is there."""
        if self._run is None:
            runs = list(self.folder.glob("saved/*/*/config.json"))
            self._run = runs[0].parent if runs else None
        return self._run

    def start(self, command=COMMAND):
        """Starts train.py, for the first time or to go on; returns the process."""
        words = ["--resume", "latest"] if self.run else ["-c", "config.json", *self.overrides]
        with open(self.console, "ab") as console:
            return subprocess.Popen(
                [*command, *words], cwd=self.folder, stdout=console, stderr=console
            )

    def finish(self):
        """Lets it train to its end, and returns the seconds that took."""
        began = time.perf_counter()
        self.expect_end(self.start())
        return time.perf_counter() - began

    def expect_end(self, process, code=0):
        """Waits for the process, which should end with this code and without a traceback."""
        came, text = process.wait(PATIENCE), self.console.read_text()
        expect(came == code, f"exit code {came}, expected {code}: {text[-2000:]}")
        expect("Traceback" not in text and "Logging error" not in text, text[-4000:])

    def wait_for(self, true, process):
        """Waits until it is true or the process has ended; returns whether it is true."""
        deadline = time.monotonic() + PATIENCE
        while not (found := true()) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL)
        return found

    def started_training(self):
        """How often a process has come to train."""
        return self.console.read_bytes().count(b"STARTING EPOCH")

    def half_written(self):
        """Names in the run folder that are not whole yet."""
        return {name for name in os.listdir(self.run or self.folder) if name.endswith(".tmp")}

    def half_saved(self):
        """Names of checkpoints that are not whole yet."""
        return {name for name in self.half_written() if name.startswith("checkpoint")}

    def result(self):
        """What the finished run has come to, {name: bytes}."""
        result = {"metrics.jsonl": (self.run / "metrics.jsonl").read_bytes()}
        for checkpoint in (latest(self.run), best(self.run)):
            for name, array in read(checkpoint)[0].items():
                result[f"{checkpoint.name}: {name}"] = array.tobytes()
        return result

    def expect_result(self, expected):
        """Holds what the run has come to against another's."""
        result = self.result()
        others = [name for name in expected | result if expected.get(name) != result.get(name)]
        expect(not others, f"{self.folder}: other bits in {', '.join(others)}")
        expect(not self.half_written(), f"{self.folder}: {self.half_written()} stayed")


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
            for name, figure in command(Path(folder), *arguments, seed=options.seed).items():
                print(f"{name:<58} {figure}")
        except AssertionError as broken:
            print(f"BROKEN: {broken}", file=sys.stderr)
            return 1
    return 0


def expect(true, otherwise):
    """Raises AssertionError unless it is true."""
    if not true:
        raise AssertionError(otherwise)


# Kills -----------------------------------------------------------------------------------------


def kills(folder, count, seed=0, workers=WORKERS):
    """Kills real runs, restarts them by --resume latest, and holds them against one never killed.

    Every second kill waits for a checkpoint that is being written.

    Returns:
        {what was counted: number}

    Raises:
        AssertionError: at the first promise that is broken.
    """
    whole = Trial(folder / "whole")
    whole.finish()
    expected = whole.result()
    seconds = Trial(folder / "timed").finish()  # by now the compiled functions are there
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

    _in_parallel(work, workers)
    for worker in range(workers):
        del counts[f"runs of {worker}"]
    return counts


def _killed_until_done(trial, chance, seconds, counts, count, lock):
    """Kills a run again and again, until it is over or the count is reached; returns how often."""
    kills, leftover = 0, set()
    while True:
        process, trained = trial.start(), trial.started_training()
        in_mid_save = kills % 2 == 0
        if counts["kills"] >= count:
            expect(process.wait(PATIENCE) == 0, trial.console.read_text()[-2000:])
        elif in_mid_save:
            saves = chance.randint(1, 3)
            for _ in range(saves):  # the file of that save, not of the one before
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
            expect(not leftover & trial.half_written(), f"{leftover} stayed after a start")
        with lock:
            if not ended:
                kills += 1
                counts["kills"] += 1
                _look(trial, acknowledged, leftover, counts)
        if ended:
            return kills
        leftover = trial.half_written()


def _look(trial, acknowledged, leftover, counts):
    """Counts what a kill has left, and reads every checkpoint."""
    if trial.run is None:
        counts["of them before there was a run"] += 1
        return
    counts["of them in mid-save"] += bool(trial.half_saved() - leftover)
    there = numbered(trial.run)
    counts["of them before the first checkpoint"] += not there
    for path in [*there, *filter(None, [best(trial.run)])]:
        try:
            read(path)
        except UserError as error:
            raise AssertionError(f"broken under its final name: {error}") from error
        counts["checkpoints read, all whole"] += 1
    if acknowledged:
        counts["acknowledged checkpoints looked for, all there"] += 1
        expect(acknowledged[-1] in there, f"{acknowledged[-1]} was there and is lost")


# Signals ---------------------------------------------------------------------------------------


def signals(folder, count, seed=0):
    """Interrupts a real run at random moments, each time goes on, and compares the end."""
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
        code = process.wait(PATIENCE)
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


# The small run ---------------------------------------------------------------------------------


def _in_parallel(work, workers):
    """Runs work(0), work(1), ... in threads; raises the first error."""
    errors = []

    def guarded(worker):
        try:
            work(worker)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def write_digits(folder):
    """Writes the first digits of MNIST as plain IDX files."""
    folder.mkdir(exist_ok=True)
    for prefix, count in EXAMPLES.items():
        for kind, header, size in (("images-idx3", 16, 784), ("labels-idx1", 8, 1)):
            packed = (ROOT / "data" / f"{prefix}-{kind}-ubyte.gz").read_bytes()
            content = gzip.decompress(packed)
            head = content[:4] + struct.pack(">i", count) + content[8:header]
            items = np.frombuffer(content, np.uint8)[header : header + count * size]
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(head + items.tobytes())


def _config(data, epochs, width):
    """The sample's config with a small network, on few examples."""
    values = json.loads((ROOT / "config.json").read_text())
    values["model"] = {"name": "mlp", "args": {"feat_dims": [width], "drop_rate": 0.2}}
    for split in ("train", "test"):
        args = values["data_loader"][split]["args"]
        args["dataset"]["args"] = {"root": str(data), "split": split}
        args["batch_size"] = 64
    values["training"] |= {
        "epochs": epochs, "save_period": 1, "keep": 3, "log_interval": 3, "ema": 0.9,
    }  # fmt: skip
    return values


if __name__ == "__main__":
    sys.exit(main())
