"""Several devices and processes: the same training, what it survives, and what it costs.

    python benchmarks/scale.py parity --count 200      losses against one device's, by step
    python benchmarks/scale.py steps --count 10000     on 8 emulated devices, without a deadlock
    python benchmarks/scale.py kills --count 30        of one of two processes; restored on one
    python benchmarks/scale.py signals --count 10      to one of two processes
    python benchmarks/scale.py cost                    time per step of 2 processes against 1

All are real `train.py` processes on this machine, which talk over 127.0.0.1; devices are emulated
where there are several in a process. Each command ends non-zero if anything was not as promised.
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

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402

from benchmarks.faults import COMMAND, Trial, expect  # noqa: E402
from model.modules import Layers, batch_norm, dropout, linear  # noqa: E402
from training.checkpoint.naming import latest  # noqa: E402
from training.checkpoint.reading import read

BATCHES = 10  # in an epoch of a Trial
PATIENCE = 600  # seconds for what takes a few
LOST, TOLD = 75, "another process was lost"  # exit code and message of one that lost another
# (processes, devices of each, shards of the state)
LAYOUTS = [
    (1, 4, 1), (1, 4, 4), (1, 8, 1), (1, 8, 8), (2, 1, 1), (2, 1, 2), (2, 2, 1), (2, 2, 4),
]  # fmt: skip
TOLERANCE = 1e-6  # of a loss, relative
# Where a gradient is zero but for rounding, as before a BatchNorm, Adam would divide rounding
# errors by their own size and make them steps; two networks that play against each other magnify
# them. Then two runs part whatever computes them; here a large eps and small steps prevent it.
ADAM = {"name": "adamw", "args": {"learning_rate": 1e-3, "eps": 1e-3}}
ADAM_OF_GAN = {"name": "adam", "args": {"learning_rate": 1e-4, "b1": 0.5, "eps": 1.0}}
GAN = {"noise_size": 8, "generator_features": 32, "discriminator_features": 8}


class Group(Trial):
    """A run of several processes.

    Args:
        folder, epochs, width, overrides: see `Trial`.
        processes: how many.
        devices: emulated in each.
    """

    def __init__(self, folder, epochs, width=32, overrides=(), processes=2, devices=1):
        super().__init__(folder, epochs, width, overrides)
        self.processes, self.devices = processes, devices

    def start_all(self, processes=None, wait=60, heartbeat=30, own=None):
        """Starts them, or so many of them; returns the processes.

        Args:
            processes: how many; None: all of the group.
            wait, heartbeat: seconds, see train.py's options.
            own: {index: more words of the command line}.
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
        """The file that a process writes to."""
        return self.console if index == 0 else self.folder / f"console-{index}"

    def said(self, index):
        """What a process has written."""
        return self.console_of(index).read_text()

    def finish(self):
        """Lets it train to its end, and returns the seconds that took."""
        began = time.perf_counter()
        for index, process in enumerate(self.start_all()):
            code = process.wait(PATIENCE)
            expect(code == 0, f"process {index}: exit code {code}: {self.said(index)[-3000:]}")
        return time.perf_counter() - began

    def lines(self):
        """The run's metrics, line by line."""
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
            for name, figure in command(Path(folder), options.count or count).items():
                print(f"{name:<58} {figure}", flush=True)
        except AssertionError as broken:
            print(f"BROKEN: {broken}", file=sys.stderr)
            return 1
    return 0


def free_port():
    """Returns a port nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def network(x, features=64, *, params=None, key=None, train=False):
    """A network whose result depends on all rows of a batch, and on random numbers."""
    layer = Layers(params, key, train)
    y = layer("hidden", linear, x.reshape(len(x), -1), features)
    y = jax.nn.relu(layer("norm", batch_norm, y))
    y = layer("drop", dropout, y, 0.2)
    return layer("out", linear, y, 10), layer.params


# Parity ----------------------------------------------------------------------------------------


def parity(folder, count, layouts=LAYOUTS, tasks=("network", "gan")):
    """Holds the losses of each layout against those of one device, step by step.

    Args:
        folder: an empty folder.
        count: steps.
        layouts: (processes, devices of each, shards).
        tasks: "network", with dropout, BatchNorm, an average of the weights and accumulation;
            "gan", with two optimizers.

    Returns:
        {task and layout: largest relative difference}

    Raises:
        AssertionError: one is above TOLERANCE.
    """
    figures = {}
    for task in tasks:
        expected = _losses(folder / task / "one", task, count, 1, 1, 1)
        for layout in layouts:
            name = "{} {} x {}, {} shards".format(task, *layout)
            losses = _losses(folder / task / "-".join(map(str, layout)), task, count, *layout)
            differences = [
                abs(loss - other) / abs(other) for loss, other in zip(losses, expected, strict=True)
            ]
            figures[name] = f"{max(differences):.1e}"
            expect(max(differences) <= TOLERANCE, f"{name}: {figures[name]}")
    return figures


def _losses(folder, task, count, processes, devices, shards):
    """The losses of every step and of every evaluation."""
    overrides = [f"devices.shards={shards}", "training.log_interval=1"]
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
    """Puts the example's config in the place of the group's, on its data."""
    values = json.loads((group.folder / "config.json").read_text())
    gan = json.loads((ROOT / "examples" / "gan" / "config.json").read_text())
    gan["model"]["args"] |= GAN
    gan["data_loader"] |= {split: values["data_loader"][split] for split in ("train", "test")}
    for rule in gan["training"]["optimizer_groups"].values():
        rule["optimizer"] = ADAM_OF_GAN
    kept = ("epochs", "save_period", "keep", "log_interval", "ema")
    gan["training"] |= {key: values["training"][key] for key in kept}
    (group.folder / "config.json").write_text(json.dumps(gan))


# Steps, kills, signals -------------------------------------------------------------------------


def steps(folder, count, devices=8):
    """Trains so many steps on emulated devices.

    Returns:
        {what: number}
    """
    epochs = -(-count // BATCHES)
    overrides = ["training.save_period=1000", "training.log_interval=10"]
    group = Group(folder, epochs, 32, overrides, processes=1, devices=devices)
    (process,) = group.start_all()
    code = process.wait(PATIENCE + count)
    expect(code == 0, f"exit code {code}: {group.said(0)[-3000:]}")
    done = int(read(latest(group.run))[0]["step"])
    expect(done == epochs * BATCHES, f"{done} steps")
    return {f"steps on {devices} devices": done}


def kills(folder, count, seed=0):
    """Kills one of two processes at random moments; the other should leave, and say why.

    Then the run goes on and finishes on one process; no checkpoint may be broken.

    Returns:
        {what was counted: number}
    """
    counts, chance, delays = collections.Counter(), random.Random(seed), []
    Group(folder / "first", 12, 400).finish()
    seconds = Group(folder / "timed", 12, 400).finish()  # by now the compiled functions are there
    while counts["kills"] < count:
        group = Group(folder / str(counts["kills"]), 12, 400)
        processes = group.start_all()
        started = time.monotonic()
        group.wait_for(lambda group=group: group.run, processes[0])  # by now they have met
        left = seconds - (time.monotonic() - started)
        time.sleep(chance.uniform(0, max(left, 1)))
        killed, saving = chance.randrange(2), bool(group.half_saved())
        processes[killed].kill()
        began = time.monotonic()
        code = processes[1 - killed].wait(PATIENCE)
        delays.append(time.monotonic() - began)
        processes[killed].wait()
        if code != 0:  # 0: it was over already
            text = group.said(1 - killed)
            expect(code == LOST, f"exit code {code}, expected {LOST}: {text[-3000:]}")
            expect(TOLD in text, text[-3000:])
        counts["kills"] += 1
        counts["of them in mid-save"] += saving
        alone = Group(group.folder, 12, 400, processes=1)
        counts["of them before the first checkpoint"] += not (alone.run and latest(alone.run))
        alone.finish()
        expect(not alone.half_written(), f"{alone.half_written()} stayed")
        expect(int(read(latest(alone.run))[0]["step"]) == 12 * BATCHES, "steps are missing")
        counts["runs finished on one process"] += 1
    return counts | {
        "the other left within a second": sum(delay <= 1 for delay in delays),
        "s until the other left, median": round(statistics.median(delays), 2),
        "s until the other left, most": round(max(delays), 2),
    }


def signals(folder, count, seed=0):
    """Sends one of two processes a signal; both should stop at one step, with one checkpoint.

    In the end the run should have the bits of one that was never stopped.

    Returns:
        {what was counted: number}
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
    """Measures an epoch of two processes against one's, the batch and the network the same.

    Both have all cores of the machine between them, so that what is above 1 is the exchange, and
    what is done twice: the optimizer's step. The sample computes much for each of its weights; the
    MLP little, and has 6 million.

    Returns:
        {what: figure}
    """
    models = {
        "sample": {"name": "mnist_model", "args": {"feat_dims": [8, 16, 32]}},
        "MLP": {"name": "mlp", "args": {"feat_dims": [width, width]}},
    }
    return {name: _cost(folder / name, count, model) for name, model in models.items()}


def _cost(folder, count, model):
    """Milliseconds for a step of one process and of two, and their ratio."""
    overrides = ["training.log_interval=100", "training.save_period=1000"]
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
