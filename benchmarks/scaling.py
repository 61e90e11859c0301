"""Measures how time and memory grow with the batch, the parameters, the devices, the data set.

    python benchmarks/scaling.py [batch] [dtype] [calls] [seeds] [parameters] [devices] [data]

Every case runs in its own process, to measure its peak memory (of the whole process, including all
libraries). "data" compares 1 million with 60,000 generated images: the time of an epoch as train.py
runs it, in turn in one process, and the peak memory without the data.
"""

import argparse
import contextlib
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np

import utils
from benchmarks import loop
from training.config import read_config
from training.distributed.preemption import StopSignal
from training.engine.build import build
from training.engine.evaluation import evaluate_all
from training.engine.initialize import count_parameters, first_batch
from training.engine.progress import Progress

ROOT = Path(__file__).resolve().parents[1]
IMAGE_BYTES = 28 * 28 + 4  # and its label
MIB = 2**20  # bytes
SECONDS = 4  # for timing the updates of a case
ROUNDS = 7
SMALL, LARGE = 60_000, 1_000_000  # images
WIDTHS = (112, 681, 2790, 9610)  # of two hidden layers: 0.1, 1, 10 and 100 million parameters
TINY = ["model.name=mlp", 'model.args={"feat_dims": [32]}', "data_loader.train.args.batch_size=64"]


class Generated:
    """Images of noise with random labels, in memory like MNIST."""

    def __init__(self, count):
        random = np.random.default_rng(0)
        self.images = random.integers(0, 256, (count, 1, 28, 28), np.uint8)
        self.labels = random.integers(0, 10, count, np.int32)

    def __len__(self):
        """Returns the number of images."""
        return len(self.labels)

    def __getitems__(self, indices):
        """Returns the images at `indices` and their labels."""
        return self.images.take(indices, axis=0), self.labels.take(indices)

    def __getitem__(self, index):
        """Returns an image and its label."""
        return self.images[index], self.labels[index]


def main():
    """Prints the requested tables, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", help="batch, dtype, ..., data; none: all")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        wanted = json.loads(options.case)
        measure = peak_of_epoch if isinstance(wanted, int) else time_updates
        print(json.dumps(measure(wanted)))
        return
    for table in (batch, dtype, calls, seeds, parameters, devices, data):
        if not options.tables or table.__name__ in options.tables:
            table()


def batch():
    """Prints the sample's update by batch size."""
    print("\n| batch | ms per update | µs per image | peak memory, MiB |\n|---|---|---|---|")
    for size in (32, 128, 512, 2048, 8192):
        found = case([f"data_loader.train.args.batch_size={size}"])
        print(f"| {size} | {_times(found, size)} | {found['peak']:.0f} |", flush=True)


def dtype():
    """Prints the update of three networks by their compute_dtype, at batch 512."""
    print("\n| network | compute_dtype | ms per update | µs per image | peak memory, MiB |")
    print("|---|---|---|---|---|")
    wide = ["model.name=mlp", 'model.args={"feat_dims": [1024, 1024]}']
    networks = {"sample": [], "vit": ["model.name=vit", "model.args={}"], "wide mlp": wide}
    for name, overrides in networks.items():
        for kind in ("float32", "bfloat16"):
            found = case([*overrides, f"training.compute_dtype={kind}"])
            print(f"| {name} | {kind} | {_times(found, 512)} | {found['peak']:.0f} |", flush=True)


def calls():
    """Prints a tiny network's update by steps per call, and by where the data are."""
    print(
        "\n| steps_per_call | cache_on_device | ms per update | µs per image | peak memory, MiB |"
    )
    print("|---|---|---|---|---|")
    for steps in (1, 4, 16):
        for cached in ("false", "true"):
            settings = f"training.steps_per_call={steps} data_loader.cache_on_device={cached}"
            found = case([*TINY, *settings.split()])
            print(f"| {steps} | {cached} | {_times(found, 64)} | {found['peak']:.0f} |", flush=True)


def seeds():
    """Prints a tiny network's update by the number of seeds trained at once."""
    print(
        "\n| seeds | ms per update | of each, µs per image | peak memory, MiB |\n|---|---|---|---|"
    )
    for number in (1, 2, 4, 8, 16):
        found = case([*TINY, f"training.seeds={number}"])
        print(f"| {number} | {_times(found, 64 * number)} | {found['peak']:.0f} |", flush=True)


def parameters():
    """Prints a multi-layer perceptron's update by its number of parameters, at batch 64."""
    print("\n| parameters | ms per update | µs per image | peak memory, MiB | state, MiB |")
    print("|---|---|---|---|---|")
    for width in WIDTHS:
        network = ["model.name=mlp", f'model.args={{"feat_dims": [{width}, {width}]}}']
        rate = "training.optimizer.args.learning_rate=0.0001"
        found = case([*network, rate, "data_loader.train.args.batch_size=64"])
        memory = f"{found['peak']:.0f} | {found['state']:.0f}"
        print(f"| {found['parameters']:,} | {_times(found, 64)} | {memory} |", flush=True)


def devices():
    """Prints the sample's update by the number of emulated devices."""
    print("\n| host devices | ms per update | µs per image | peak memory, MiB |\n|---|---|---|---|")
    for number in (1, 2, 4, 8):
        found = case([], XLA_FLAGS=f"--xla_force_host_platform_device_count={number}")
        print(f"| {number} | {_times(found, 512)} | {found['peak']:.0f} |", flush=True)


def data():
    """Prints the cost per image of an epoch of many images, compared with one of few."""
    peaks = [case(images)["peak"] - images * IMAGE_BYTES / MIB for images in (SMALL, LARGE)]
    print("\n| images | train.py's epoch, µs per image | peak memory without the data, MiB |")
    print("|---|---|---|")
    few, many = time_epochs()
    for images, seconds, peak in ((SMALL, few, peaks[0]), (LARGE, many, peaks[1])):
        print(f"| {images:,} | {1e6 * statistics.median(seconds):.2f} | {peak:.0f} |", flush=True)
    ratios = [b / a for a, b in zip(few, many, strict=True)]
    print(
        f"time per image, {LARGE:,} over {SMALL:,}: median {statistics.median(ratios):.3f} ", end=""
    )
    print(f"({min(ratios):.3f} to {max(ratios):.3f}); memory {peaks[1] / peaks[0]:.3f}")


def case(wanted, **environment):
    """Returns the result of `time_updates`, or `peak_of_epoch` for a number, in a new process."""
    command = [sys.executable, __file__, "--case", json.dumps(wanted)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout.splitlines()[-1])


def time_updates(overrides):
    """Returns seconds per update, peak memory and the state's size in MiB, and the parameters."""
    experiment = build(read_config(ROOT / "config.json", overrides))
    state = experiment.init(first_batch(experiment))
    found = {"parameters": count_parameters(state.params, experiment.seeds)}
    found["state"] = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / MIB
    call, _ = next(experiment.batches(epoch=1))
    state, _ = jax.block_until_ready(experiment.update(state, call))
    times, began = [], time.perf_counter()
    while time.perf_counter() - began < SECONDS or len(times) < 3:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(experiment.update(state, call))
        times.append((time.perf_counter() - start) / experiment.steps_per_call)
    return found | {"seconds": statistics.median(times), "peak": peak_memory()}


def time_epochs():
    """Returns seconds per image of epochs over few images, and over many, a list each.

    In turn: few, many, few. Of the many it runs only the last batches of an epoch, twice as many as
    the few have; the order is still drawn for all of them.
    """
    few, many = (
        (config, build(config))
        for config in (read_config(ROOT / "config.json", _generated(n)) for n in (SMALL, LARGE))
    )
    # One compiled update for both, as they differ only in the schedule's length.
    many = many[0], many[1]._replace(update=few[1].update)
    state = few[1].init(first_batch(few[1]))
    batches = len(few[1].loaders["train"])
    images = 2 * batches * few[1].loaders["train"].batch_size
    times = [], []
    with quiet() as (folder, stop):
        state, _ = loop.loop_epoch(*few, state, folder, stop, Progress())
        for _ in range(ROUNDS):
            state, before = loop.loop_epoch(*few, state, folder, stop, Progress())
            start = len(many[1].loaders["train"]) - 2 * batches
            state, between = loop.loop_epoch(*many, state, folder, stop, Progress(batch=start))
            state, after = loop.loop_epoch(*few, state, folder, stop, Progress())
            times[0].append((before + after) / images)
            times[1].append(between / images)
    return times


def peak_of_epoch(images):
    """Returns the peak memory in MiB of an epoch's last batches, and of the evaluation."""
    config = read_config(ROOT / "config.json", _generated(images))
    experiment = build(config)
    state = experiment.init(first_batch(experiment))
    with quiet() as (folder, stop):
        start = len(experiment.loaders["train"]) - SMALL // experiment.loaders["train"].batch_size
        state, _ = loop.loop_epoch(config, experiment, state, folder, stop, Progress(batch=start))
        evaluate_all(experiment, state.params)
    return {"peak": peak_memory()}


def peak_memory():
    """Returns the peak memory of this process in MiB; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextlib.contextmanager
def quiet():
    """Yields a folder for logs and a StopSignal; silences the console."""
    with (
        tempfile.TemporaryDirectory() as folder,
        StopSignal() as stop,
        open(os.devnull, "w") as no,
    ):
        utils.set_up_logging(folder)
        logging.getLogger("main").handlers[0].setStream(no)
        yield Path(folder), stop


def _generated(images):
    named = {"name": "benchmarks.scaling:Generated", "args": {"count": images}}
    return [f"data_loader.train.args.dataset={json.dumps(named)}"]


def _times(found, size):
    return f"{1e3 * found['seconds']:.2f} | {1e6 * found['seconds'] / size:.2f}"


if __name__ == "__main__":
    main()
