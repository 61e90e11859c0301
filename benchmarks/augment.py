"""Measures what augmentation adds to an update: with it over without it, in turn in one process.

    python benchmarks/augment.py [--rounds 40] [--updates 4] [NAME ...]

NAME are lines of the table below, by default all. The updates are those of config.json, on batches
that are already on the device. The result is the median of the one over that of the other, and the
quartiles of paired rounds. Wanted for mixup, random_crop and random_flip together: at most 1.10 on
a CPU.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax

from training.config import read_config
from training.engine.build import build
from training.engine.initialize import first_batch


def named(name, **args):
    """Returns how a config names a transform."""
    return {"name": name, "args": args}


CROP, MIXUP = named("random_crop", padding=2), named("mixup", alpha=0.2)
TABLE = {
    "nothing, once more": [],
    "random_shift": [named("random_shift", pixels=1)],
    "random_flip": [named("random_flip")],
    "random_crop": [CROP],
    "mixup": [MIXUP],
    "mixup, random_crop, random_flip": [CROP, named("random_flip"), MIXUP],
    "cutmix": [named("cutmix")],
    "random_erasing": [named("random_erasing")],
    "color_jitter": [named("color_jitter", brightness=0.4, contrast=0.4)],
    "random_resized_crop": [named("random_resized_crop")],
    "random_affine": [named("random_affine", degrees=15, translate=0.1)],
    "rand_augment": [named("rand_augment")],
}


def main():
    """Prints a line of a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--updates", type=int, default=4, help="of a round")
    parser.add_argument("names", nargs="*", metavar="NAME", help="; ".join(TABLE))
    options = parser.parse_args()
    if unknown := set(options.names) - TABLE.keys():
        parser.error(f"no {unknown.pop()!r}; there are {'; '.join(TABLE)}")
    print("| transforms | update over that without (quartiles) | ms more |\n|---|---|---|")
    for name in options.names or TABLE:
        pairs = compare(TABLE[name], options.rounds, options.updates)
        ours, plain = (statistics.median(times) for times in zip(*pairs, strict=True))
        low, _, high = statistics.quantiles((one / other for one, other in pairs), n=4)
        more = 1000 * (ours - plain)
        print(f"| {name} | {ours / plain:.3f} ({low:.3f} to {high:.3f}) | {more:.2f} |", flush=True)


def compare(transforms, rounds, updates):
    """Returns the seconds of an update with and without transforms, pair by pair."""
    runs = []
    for augment in (transforms, []):
        config = read_config("config.json").model_dump()
        config["data_loader"]["augment"] = augment
        experiment = build(read_config(config))
        batch = jax.device_put(first_batch(experiment))
        state, _ = experiment.update(experiment.init(batch), batch)
        runs.append([experiment.update, state, batch])
    return [[timed(run, updates) for run in runs] for _ in range(rounds)]


def timed(run, updates):
    """Returns the seconds of an update, of which several are made one after the other."""
    update, state, batch = run
    began = time.perf_counter()
    for _ in range(updates):
        state, _ = update(state, batch)
    jax.block_until_ready(state)
    run[1] = state
    return (time.perf_counter() - began) / updates


if __name__ == "__main__":
    main()
