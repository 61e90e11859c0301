"""Several devices and processes: equal losses, recovery from kills, and the cost of a step.

    python benchmarks/scale.py parity --count 200      compares losses with one device, step by step
    python benchmarks/scale.py steps --count 10000     on 8 emulated devices, without a deadlock
    python benchmarks/scale.py kills --count 30        of one of two processes; restored on one
    python benchmarks/scale.py signals --count 10      to one of two processes
    python benchmarks/scale.py cost                    time per step of 2 processes against 1

All are real `train.py` processes on this machine, connected over 127.0.0.1; several devices in a
process are emulated. Each command ends with a non-zero exit code if a promise is broken.
"""

import argparse
import collections
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax

from benchmarks.faults_common import COMMAND, ROOT, Trial, expect
from model.modules import Layers, batch_norm, dropout, linear
from training.checkpoint.naming import latest
from training.checkpoint.reading import read

BATCHES = 10  # in an epoch of a Trial
PATIENCE = 600  # seconds for what takes a few
LOST, MESSAGE = 75, "another process was lost"  # of a process that lost another
# (processes, devices of each, shards of the state)
LAYOUTS = [
    (1, 4, 1), (1, 4, 4), (1, 8, 1), (1, 8, 8), (2, 1, 1), (2, 1, 2), (2, 2, 1), (2, 2, 4),
]  # fmt: skip
TOLERANCE = 1e-6  # of a loss, relative
# Where a gradient is zero except for rounding, as before a BatchNorm, Adam divides rounding errors
# by their own size and turns them into steps; two adversarial networks magnify them. Then any two
# runs diverge, on one device too; a large eps and small steps prevent it here.
ADAM = {"name": "adamw", "args": {"learning_rate": 1e-3, "eps": 1e-3}}
ADAM_OF_GAN = {"name": "adam", "args": {"learning_rate": 1e-4, "b1": 0.5, "eps": 1.0}}
GAN = {"noise_size": 8, "generator_features": 32, "discriminator_features": 8}


class Group(Trial):
    """A run of several processes.

    Args:
        folder, epochs, width, overrides: see `Trial`.
        processes: number of processes.
        devices: number of emulated devices in each.
    """

    def __init__(self, folder, epochs, width=32, overrides=(), processes=2, devices=1):
        super().__init__(folder, epochs, width, overrides)
        self.processes, self.devices = processes, devices

    def start_all(self, processes=None, wait=60, heartbeat=30, own=None):
        """Starts the processes, or the first few; returns them.

        Args:
            processes: how many; None: all of the group.
            wait, heartbeat: seconds, see train.py's options.
            own: {index: additional arguments of that process}.
        """
        count = self.processes if processes is None else processes
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(self.devices)}
        words = ["--resume", "latest"] if self.run else ["-c", "config.json", *self.overrides]
        if self.processes > 1:
            words += ["--coordinator", f"127.0.0.1:{free_port()}", "--wait", str(wait)]
            words += ["--processes", str(self.processes), "--heartbeat", str(heartbeat)]
        started = []
        for index in range(count):
            each = ["--process-id", str(index)] if self.processes > 1 else []
            with open(self.console_of(index), "ab") as console:
                started.append(
                    subprocess.Popen(
                        [*COMMAND, *words, *each, *(own or {}).get(index, [])],
                        cwd=self.folder, stdout=console, stderr=console, env=environment,
                    )
                )  # fmt: skip
        return started

    def console_of(self, index):
        """Returns the file that a process's output goes to."""
        return self.console if index == 0 else self.folder / f"console-{index}"

    def said(self, index):
        """Returns what a process has printed."""
        return self.console_of(index).read_text()

    def finish(self):
        """Trains to the end, and returns the seconds that took."""
        began = time.perf_counter()
        for index, process in enumerate(self.start_all()):
            code = process.wait(PATIENCE)
            expect(code == 0, f"process {index}: exit code {code}: {self.said(index)[-3000:]}")
        return time.perf_counter() - began

    def lines(self):
        """Returns the lines of the run's metrics.jsonl, as dicts."""
        return [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]


def main():
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = {
        "parity": (parity, 200), "steps": (steps, 10_000), "kills": (kills, 30),
        "signals": (signals, 10), "cost": (cost, 5),
    }  # fmt: skip
    parser.add_argument("command", choices=commands)
    parser.add_argument("--count", type=int)
    options = parser.parse_args()
    command, count = commands[options.command]
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        try:
            for name, value in command(Path(folder), options.count or count).items():
                print(f"{name:<58} {value}", flush=True)
        except AssertionError as broken:
            print(f"BROKEN: {broken}", file=sys.stderr)
            return 1
    return 0


def free_port():
    """Returns a free port."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def network(x, features=64, *, params=None, key=None, train=False):
    """A network whose outputs depend on all rows of a batch, and on random numbers."""
    layer = Layers(params, key, train)
    y = layer("hidden", linear, x.reshape(len(x), -1), features)
    y = jax.nn.relu(layer("norm", batch_norm, y))
    y = layer("drop", dropout, y, 0.2)
    return layer("out", linear, y, 10), layer.params


# Parity ----------------------------------------------------------------------------------------


def parity(folder, count, layouts=LAYOUTS, tasks=("network", "gan")):
    """Compares the losses of each layout with those of one device, step by step.

    Args:
        folder: an empty folder.
        count: number of steps.
        layouts: (processes, devices of each, shards).
        tasks: "network", with dropout, BatchNorm, an average of the weights and accumulation;
            "gan", with two optimizers.

    Returns:
        {task and layout: largest relative difference}

    Raises:
        AssertionError: a difference is above TOLERANCE.
    """
    largest = {}
    for task in tasks:
        expected = _losses(folder / task / "one", task, count, 1, 1, 1)
        for layout in layouts:
            name = "{} {} x {}, {} shards".format(task, *layout)
            losses = _losses(folder / task / "-".join(map(str, layout)), task, count, *layout)
            differences = [
                abs(loss - other) / abs(other) for loss, other in zip(losses, expected, strict=True)
            ]
            largest[name] = f"{max(differences):.1e}"
            expect(max(differences) <= TOLERANCE, f"{name}: {largest[name]}")
    return largest


def _losses(folder, task, count, processes, devices, shards):
    """Returns the losses of every step and of every evaluation."""
    overrides = [f"devices.shards={shards}", "training.log_every=1"]
    if task == "network":
        overrides += ["model.name=benchmarks.scale:network", 'model.args={"features": 64}']
        overrides += ["training.accumulate=2", f"training.optimizer={json.dumps(ADAM)}"]
    group = Group(folder, -(-count // BATCHES), 32, overrides, processes, devices)
    if task == "gan":
        _make_gan(group)
    group.finish()
    return [
        value
        for line in group.lines()
        for name, value in line.items()
        if name.endswith("loss") and not name.startswith("epoch_")
    ]


def _make_gan(group):
    """Replaces the group's config by that of examples/gan, on the group's data."""
    values = json.loads((group.folder / "config.json").read_text())
    gan = json.loads((ROOT / "examples" / "gan" / "config.json").read_text())
    gan["model"]["args"] |= GAN
    gan["data_loader"] |= {split: values["data_loader"][split] for split in ("train", "test")}
    for optimizer_group in gan["training"]["optimizer_groups"].values():
        optimizer_group["optimizer"] = ADAM_OF_GAN
    kept = ("epochs", "save_every", "keep", "log_every", "ema")
    gan["training"] |= {key: values["training"][key] for key in kept}
    (group.folder / "config.json").write_text(json.dumps(gan))


# Steps, kills, signals -------------------------------------------------------------------------


def steps(folder, count, devices=8):
    """Trains `count` steps on emulated devices.

    Returns:
        {name of a count: number}
    """
    epochs = -(-count // BATCHES)
    overrides = ["training.save_every=1000", "training.log_every=10"]
    group = Group(folder, epochs, 32, overrides, processes=1, devices=devices)
    (process,) = group.start_all()
    code = process.wait(PATIENCE + count)
    expect(code == 0, f"exit code {code}: {group.said(0)[-3000:]}")
    done = int(read(latest(group.run))[0]["step"])
    expect(done == epochs * BATCHES, f"{done} steps")
    return {f"steps on {devices} devices": done}


def kills(folder, count, seed=0):
    """Kills one of two processes at random moments; the other must end, and say why.

    Then the run resumes and finishes on one process; no checkpoint may be broken.

    Returns:
        {name of a count: number}
    """
    counts, chance, delays = collections.Counter(), random.Random(seed), []
    Group(folder / "first", 12, 400).finish()
    seconds = Group(folder / "timed", 12, 400).finish()  # the compiled functions are cached
    while counts["kills"] < count:
        group = Group(folder / str(counts["kills"]), 12, 400)
        processes = group.start_all()
        started = time.monotonic()
        group.wait_for(lambda group=group: group.run, processes[0])  # by now they are connected
        left = seconds - (time.monotonic() - started)
        time.sleep(chance.uniform(0, max(left, 1)))
        killed, saving = chance.randrange(2), bool(group.half_saved())
        processes[killed].kill()
        began = time.monotonic()
        code = processes[1 - killed].wait(PATIENCE)
        delays.append(time.monotonic() - began)
        processes[killed].wait()
        if code != 0:  # 0: it had already finished
            text = group.said(1 - killed)
            expect(code == LOST, f"exit code {code}, expected {LOST}: {text[-3000:]}")
            expect(MESSAGE in text, text[-3000:])
        counts["kills"] += 1
        counts["of them during a save"] += saving
        alone = Group(group.folder, 12, 400, processes=1)
        counts["of them before the first checkpoint"] += not (alone.run and latest(alone.run))
        alone.finish()
        expect(not alone.half_written(), f"{alone.half_written()} left over")
        expect(int(read(latest(alone.run))[0]["step"]) == 12 * BATCHES, "steps are missing")
        counts["runs finished on one process"] += 1
    return counts | {
        "the other ended within a second": sum(delay <= 1 for delay in delays),
        "s until the other ended, median": round(statistics.median(delays), 2),
        "s until the other ended, most": round(max(delays), 2),
    }


def signals(folder, count, seed=0):
    """Sends a signal to one of two processes; both must stop at the same step, with a checkpoint.

    The finished run must have the bits of one that was never stopped.

    Returns:
        {name of a count: number}
    """
    epochs, chance, stops = 60 * count, random.Random(seed), []
    whole, group = Group(folder / "whole", epochs), Group(folder / "stopped", epochs)
    whole.finish()
    for _ in range(count):
        trained, processes = group.started_training(), group.start_all()
        group.wait_for(lambda trained=trained: group.started_training() > trained, processes[0])
        time.sleep(chance.uniform(1, 3))
        number, sent = chance.choice([signal.SIGINT, signal.SIGTERM]), time.time()
        chosen = chance.randrange(2)
        processes[chosen].send_signal(number)
        codes = [process.wait(PATIENCE) for process in processes]
        stops.append(time.time() - sent)
        wanted = [128 + (number if index == chosen else signal.SIGTERM) for index in range(2)]
        expect(codes == wanted, f"exit codes {codes}, expected {wanted}: {group.said(0)[-2000:]}")
        expect(latest(group.run).stat().st_ctime > sent, "no checkpoint was saved")
    group.finish()
    group.expect_result(whole.result())
    return {
        "signals, then weights and metrics.jsonl the same to the bit": count,
        "s from the signal to the end of both, median": round(statistics.median(stops), 2),
    }


# Cost ------------------------------------------------------------------------------------------


def cost(folder, count, width=2048):
    """Compares an epoch of two processes with one of one process, for the same batch and network.

    The two processes share all cores of the machine, so a ratio above 1 is the cost of the exchange
    and of the work done twice, the optimizer's step. The sample computes much per weight; the MLP
    little, and has 6 million weights.

    Returns:
        {network: milliseconds and ratio}
    """
    models = {
        "sample": {"name": "mnist_model", "args": {"feat_dims": [8, 16, 32]}},
        "MLP": {"name": "mlp", "args": {"feat_dims": [width, width]}},
    }
    return {name: _cost(folder / name, count, model) for name, model in models.items()}


def _cost(folder, count, model):
    """Returns the milliseconds of a step of one process and of two, and their ratio, as text."""
    overrides = ["training.log_every=100", "training.save_every=1000"]
    overrides += [f"model={json.dumps(model)}"]
    medians = []
    for processes in (1, 2):
        group = Group(folder / str(processes), 2 + count, 32, overrides, processes)
        group.finish()
        times = (group.run / "timing.jsonl").read_text().splitlines()
        seconds = [json.loads(line)["seconds"] for line in times][2:]
        medians.append(1000 * statistics.median(seconds) / BATCHES)
    return "{:.1f} ms, {:.1f} ms: {:.2f}".format(*medians, medians[1] / medians[0])


if __name__ == "__main__":
    sys.exit(main())
