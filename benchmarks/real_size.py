"""Data and states of ordinary large size: seconds, and the largest resident memory.

python benchmarks/real_size.py examples      100,000,000 examples: split, orders, first batches
python benchmarks/real_size.py checkpoint    300,000,000 parameters: what saving takes from training
python benchmarks/real_size.py statistics    1,000 classes: an epoch with confusion matrix and
                                             macro F1 over one without, in turn; wanted 1.05
"""

import argparse
import logging
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

import utils
from data_loader.dataloader import DataLoader
from training.checkpoint.saver import Saver
from training.config import read_config
from training.distributed.preemption import StopSignal
from training.engine.build import build
from training.engine.evaluation import evaluate_all
from training.engine.initialize import first_batch
from training.engine.loop import train_epoch
from training.engine.progress import Progress
from training.engine.run import Run
from training.tracking.metric_logger import MetricLogger
from training.tracking.trackers import Trackers

STATISTICS = ["confusion_matrix", "macro_f1"]


class Numbers:
    """Examples that are their own numbers."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitems__(self, indices):
        return indices.astype(np.float32)[:, None], (indices % 10).astype(np.int32)

    def __getitem__(self, index):
        return self.__getitems__(np.asarray([index]))


class Rows:
    """25,600 rows of 300 numbers, of so many classes."""

    def __init__(self, classes):
        random = np.random.default_rng(0)
        self.inputs = random.normal(size=(25_600, 300)).astype(np.float32)
        self.targets = random.integers(0, classes, 25_600).astype(np.int32)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.inputs[index], self.targets[index]

    __getitems__ = __getitem__


def main():
    """Runs one of the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["examples", "checkpoint", "statistics"])
    parser.add_argument("--count", type=int, help="of examples, parameters or classes")
    options = parser.parse_args()
    {"examples": examples, "checkpoint": checkpoint, "statistics": class_statistics}[options.what](
        options.count
    )


def examples(count):
    """Times the split, and the first batches of two epochs."""
    began = time.perf_counter()
    arguments = {"batch_size": 512, "shuffle": True, "validation_split": 0.1, "stratify": False}
    loader = DataLoader(Numbers(count or 100_000_000), **arguments)
    report("split", began)
    for epoch in (1, 2):
        began = time.perf_counter()
        batches = loader.batches(epoch)
        next(batches)
        report(f"first batch of epoch {epoch}", began)
        began = time.perf_counter()
        for _ in range(1000):
            next(batches)
        report("the next 1,000", began)


def checkpoint(count):
    """Times updates alone and beside a save, and what the calls of the saver take."""
    size = (count or 300_000_000) // 8
    state = {f"layer{index}": jnp.full(size, 1.0, jnp.float32) for index in range(8)}
    square = jnp.ones((2000, 2000))
    update = jax.jit(lambda state: jax.tree.map(lambda x: x * 1.0001, state), donate_argnums=0)
    work = jax.jit(lambda x: jnp.tanh(x @ x / 2000))

    def step(state):
        began = time.perf_counter()
        state = jax.block_until_ready(update(state))
        for _ in range(5):
            work(square).block_until_ready()
        return state, time.perf_counter() - began

    state, _ = step(state)
    alone, beside = [], []
    for _ in range(10):
        state, seconds = step(state)
        alone.append(seconds)
    print(f"a step alone: {np.median(alone):.2f} s")
    with tempfile.TemporaryDirectory(dir="saved") as folder, Saver(folder, keep=1) as saver:
        began = time.perf_counter()
        saver.save(state, {}, "checkpoint-epoch_1.params", best=True)
        report("the call that saves, a new best", began)
        while not saver._pending.done():
            state, seconds = step(state)
            beside.append(seconds)
        report("on disk after", began)
        lost = sum(beside) - len(beside) * np.median(alone)
        print(f"{len(beside)} steps beside it: {np.median(beside):.2f} s; {lost:.1f} s lost in all")


def class_statistics(count, rounds=11):
    """Times epochs of train.py, evaluation included, with and without the two metrics."""
    classes, ratios, processors = count or 1000, [], []
    with tempfile.TemporaryDirectory() as folder, StopSignal() as stop:
        utils.set_up_logging(folder)
        logging.getLogger("main").handlers[0].setStream(open(Path(folder) / "console", "w"))  # noqa: SIM115
        plain, counting = (_experiment(classes, more, folder) for more in ([], STATISTICS))
        for number in range(rounds + 1):
            order = (plain, counting) if number % 2 else (counting, plain)
            seconds = {id(one): _epoch(one, Path(folder), stop) for one in order}
            (wall, cpu), (wall_plain, cpu_plain) = seconds[id(counting)], seconds[id(plain)]
            if number:  # the first compiles
                ratios.append(wall / wall_plain)
                processors.append((cpu, cpu_plain))
                print(f"with {wall:.2f} s, without {wall_plain:.2f} s", flush=True)
    least, least_plain = map(min, zip(*processors, strict=True))
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"{classes} classes, seconds: {statistics.median(ratios):.3f} ({spread})")
    median = statistics.median(a / b for a, b in processors)
    least = f"least {least:.3f} s, {least_plain:.3f} s without, {least / least_plain:.3f}"
    print(f"of the processors: {median:.3f}; {least}")


def _experiment(classes, metrics, folder):
    """Returns [config, experiment, state] of an MLP."""
    dataset = {"name": "benchmarks.real_size:Rows", "args": {"classes": classes}}
    loader = {"name": "DataLoader", "args": {"dataset": dataset, "batch_size": 256}}
    values = {
        "title": "Classes",
        "model": {"name": "mlp", "args": {"feat_dims": [256], "classes": classes}},
        "data_loader": {"train": loader, "test": loader, "cache_on_device": False},
        "training": {
            "loss": "cross_entropy",
            "metrics": ["accuracy", *metrics],
            "optimizer": {"name": "sgd", "args": {"learning_rate": 0.1}},
            "epochs": 1,
            "save_dir": str(folder),
        },
    }
    config = read_config(values)
    experiment = build(config, "config")
    return [config, experiment, experiment.init(first_batch(experiment))]


def _epoch(one, folder, stop):
    """Returns the seconds, and those of the processors, of an epoch with its evaluation."""
    config, experiment, state = one
    run = Run(config, folder, experiment, state, Progress())
    with Trackers(config, folder, {}) as trackers:
        logger = MetricLogger(run.progress, trackers, experiment, config.training.log_every)
        began, cpu = time.perf_counter(), time.process_time()
        logger.start_epoch()
        train_epoch(run, logger, stop)
        logger.end_epoch(evaluate_all(experiment, run.params))
        seconds = time.perf_counter() - began, time.process_time() - cpu
    one[2] = run.state
    return seconds


def report(what, began):
    """Prints the seconds since `began`, and the largest memory so far."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {time.perf_counter() - began:.2f} s, {memory:.2f} GiB at most")


if __name__ == "__main__":
    main()
