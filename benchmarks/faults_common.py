"""What the programs faults*.py and scale.py share: a small run in its own folder."""

import gzip
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from training.checkpoint.naming import best, latest
from training.checkpoint.reading import read

ROOT = Path(__file__).resolve().parents[1]
POLL = 0.0005  # seconds between two looks at a run folder
TIMEOUT = 120  # seconds for what takes a few
COMMAND = (sys.executable, ROOT / "train.py")
EXAMPLES = {"train": 640, "t10k": 200}
SCHEDULE = 10_000  # steps; the same for any number of epochs, which then compile the same functions


class Trial:
    """A run in its own folder, which can be started, killed and started again.

    Args:
        folder: an empty folder.
        epochs: number of epochs of the run.
        width: features of the network's hidden layer; 1,000 make checkpoints of 13 MB.
        overrides: "key.path=value" of the config.
    """

    def __init__(self, folder, epochs=12, width=400, overrides=()):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_digits(self.folder / "data")
        config = small_config(self.folder / "data", epochs, width)
        (self.folder / "config.json").write_text(json.dumps(config))
        self.overrides, self.console = list(overrides), self.folder / "console"
        self.console.touch()
        self._run = None

    @property
    def run(self):
        """The run folder, or None before it exists."""
        if self._run is None:
            runs = list(self.folder.glob("saved/*/*/config.json"))
            self._run = runs[0].parent if runs else None
        return self._run

    def start(self, command=COMMAND):
        """Starts train.py, for the first time or to resume; returns the process."""
        words = ["--resume", "latest"] if self.run else ["-c", "config.json", *self.overrides]
        with open(self.console, "ab") as console:
            return subprocess.Popen(
                [*command, *words], cwd=self.folder, stdout=console, stderr=console
            )

    def finish(self):
        """Trains to the end, and returns the seconds that took."""
        began = time.perf_counter()
        self.expect_end(self.start())
        return time.perf_counter() - began

    def expect_end(self, process, code=0):
        """Waits for the process to end with this code and without a traceback."""
        got, text = process.wait(TIMEOUT), self.console.read_text()
        expect(got == code, f"exit code {got}, expected {code}: {text[-2000:]}")
        expect("Traceback" not in text and "Logging error" not in text, text[-4000:])

    def wait_for(self, condition, process):
        """Waits until the condition holds or the process ends; returns the condition's value."""
        deadline = time.monotonic() + TIMEOUT
        while not (found := condition()) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL)
        return found

    def started_training(self):
        """Returns how many epochs have been started, over all processes."""
        return self.console.read_bytes().count(b"STARTING EPOCH")

    def half_written(self):
        """Returns the names of files in the run folder that are not complete yet."""
        return {name for name in os.listdir(self.run or self.folder) if name.endswith(".tmp")}

    def half_saved(self):
        """Returns the names of checkpoints that are not complete yet."""
        return {name for name in self.half_written() if name.startswith("checkpoint")}

    def result(self):
        """Returns the metrics and arrays of the finished run, {name: bytes}."""
        result = {"metrics.jsonl": (self.run / "metrics.jsonl").read_bytes()}
        for checkpoint in (latest(self.run), best(self.run)):
            for name, array in read(checkpoint)[0].items():
                result[f"{checkpoint.name}: {name}"] = array.tobytes()
        return result

    def expect_result(self, expected):
        """Compares the run's result with another's, bit by bit."""
        result = self.result()
        differing = [name for name in expected | result if expected.get(name) != result.get(name)]
        expect(not differing, f"{self.folder}: other bits in {', '.join(differing)}")
        expect(not self.half_written(), f"{self.folder}: {self.half_written()} left over")


def expect(condition, message):
    """Raises AssertionError with the message unless the condition is true."""
    if not condition:
        raise AssertionError(message)


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


def small_config(data, epochs, width):
    """Returns the sample's config with a small network, on few examples."""
    values = json.loads((ROOT / "config.json").read_text())
    values["model"] = {"name": "mlp", "args": {"feat_dims": [width], "drop_rate": 0.2}}
    for split in ("train", "test"):
        args = values["data_loader"][split]["args"]
        args["dataset"]["args"] = {"root": str(data), "split": split}
        args["batch_size"] = 64
    rate = values["training"]["optimizer"]["args"]["learning_rate"]
    rate["args"]["total_steps"] = SCHEDULE
    values["training"] |= {
        "epochs": epochs, "save_every": 1, "keep": 3, "log_every": 3, "ema": 0.9,
        "monitor": "max test_accuracy",
    }  # fmt: skip
    return values
