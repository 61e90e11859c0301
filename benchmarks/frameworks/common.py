"""What the programs of benchmarks/peers.py share: options, data, and the protocol of requests."""

import argparse
import gzip
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
MEAN, DEVIATION = 0.1307, 0.3081  # of MNIST's pixels, scaled to 0 ... 1
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-4
NETWORKS = ("sample", "lenet", "vit", "mlp", "resnet18", "gpt")
BATCH = {"resnet18": 256, "gpt": 64}  # else 512
EXAMPLES = {"resnet18": 25_600, "gpt": 12_800}  # of an epoch, else 59,904: whole batches
CONTEXT, STRIDE, CODES = 128, 32, 128  # of the text for gpt: ASCII codes


def parse_options(ways=(), arguments=None):
    """Returns the options of a program: network, way, device, dtype, examples; and batch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("way", nargs="?", choices=ways or None)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or tpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--examples", type=int, help="of an epoch")
    options, options.rest = parser.parse_known_args(arguments)
    options.examples = options.examples or EXAMPLES.get(options.network, 59_904)
    options.batch = min(BATCH.get(options.network, 512), options.examples)
    return options


def training_set(options):
    """Returns the inputs and the int64 targets of an epoch.

    Pictures are normalised, in float32: (examples, 28, 28, 1) of MNIST, (examples, 32, 32, 3) of
    noise. The text is (examples, 128) integers, the targets the characters that follow.
    """
    if options.network == "gpt":
        inputs, targets = windows()
    elif options.network == "resnet18":
        stored, targets = noise()
        inputs = normalized(stored)
    else:
        inputs, targets = mnist()
    return inputs[: options.examples], targets[: options.examples].astype(np.int64)


def mnist():
    """Returns the images (60000, 28, 28, 1) and the labels of MNIST."""
    images, labels = (
        np.frombuffer(gzip.decompress((ROOT / "data" / name).read_bytes()), np.uint8, offset=offset)
        for name, offset in (("train-images-idx3-ubyte.gz", 16), ("train-labels-idx1-ubyte.gz", 8))
    )
    return normalized(images.reshape(-1, 28, 28, 1)), labels


def noise(count=EXAMPLES["resnet18"]):
    """Returns pictures of random pixels, (count, 32, 32, 3) uint8, and random labels."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, 10, count)


def windows():
    """Returns the windows of a text, (13609, 128) int32, and the same one character later."""
    text = np.frombuffer((ROOT / "examples" / "text" / "gospels.txt").read_bytes(), np.uint8)
    starts = np.arange(0, len(text) - CONTEXT - 1, STRIDE)
    found = text[starts[:, None] + np.arange(CONTEXT + 1)].astype(np.int32)
    return found[:, :-1], found[:, 1:]


def normalized(images):
    """Returns uint8 images as float32, of mean 0 and standard deviation 1 (those of MNIST)."""
    return (images.astype(np.float32) / 255 - MEAN) / DEVIATION


def batches(inputs, targets, batch, rng):
    """Yields the batches of an epoch in a new order."""
    order = rng.permutation(len(targets))
    for first in range(0, len(order), batch):
        taken = order[first : first + batch]
        yield inputs[taken], targets[taken]


def serve(parameters, epoch):
    """Prints the number of parameters; then runs an epoch for each line of its input.

    Args:
        parameters: their number, to check that all programs have the same network.
        epoch: `() -> mean loss`; returns once everything is computed.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # other output is not an answer
    print(json.dumps({"parameters": int(parameters)}), file=answers, flush=True)
    for _ in sys.stdin:
        began, worked = time.perf_counter(), time.process_time()
        loss = float(epoch())
        seconds, cpu = time.perf_counter() - began, time.process_time() - worked
        print(json.dumps({"seconds": seconds, "cpu": cpu, "loss": loss}), file=answers, flush=True)
