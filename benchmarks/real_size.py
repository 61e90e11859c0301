"""Data and states of ordinary large size: seconds, and the largest resident memory.

python benchmarks/real_size.py examples      100,000,000 examples: split, orders, first batches
python benchmarks/real_size.py checkpoint    300,000,000 parameters: what saving takes from training
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from data_loader.dataloader import DataLoader
from training.checkpoint.saver import Saver


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


def main():
    """Runs one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["examples", "checkpoint"])
    parser.add_argument("--count", type=int, help="of examples, or of parameters")
    options = parser.parse_args()
    {"examples": examples, "checkpoint": checkpoint}[options.what](options.count)


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


def report(what, began):
    """Prints the seconds since `began`, and the largest memory so far."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {time.perf_counter() - began:.2f} s, {memory:.2f} GiB at most")


if __name__ == "__main__":
    main()
