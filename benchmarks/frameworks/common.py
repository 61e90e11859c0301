"""What the programs of benchmarks/peers.py share: the data, and the protocol of requests."""

import gzip
import json
import os
import sys
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[2] / "data"
MEAN, DEVIATION = 0.1307, 0.3081  # of MNIST's pixels, scaled to 0 ... 1
BATCH = 512
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-4


def training_set():
    """Returns the normalised images (60000, 28, 28) in float32 and the labels (60000,)."""
    images, labels = (
        np.frombuffer(gzip.decompress((DATA / name).read_bytes()), np.uint8, offset=offset)
        for name, offset in (("train-images-idx3-ubyte.gz", 16), ("train-labels-idx1-ubyte.gz", 8))
    )
    images = (images.reshape(-1, 28, 28).astype(np.float32) / 255 - MEAN) / DEVIATION
    return images, labels.astype(np.int64)


def batches(images, labels, rng):
    """Yields the batches of an epoch in a new order; the last is smaller."""
    order = rng.permutation(len(labels))
    for first in range(0, len(order), BATCH):
        taken = order[first : first + BATCH]
        yield images[taken], labels[taken]


def serve(parameters, epoch):
    """Prints the number of parameters; then runs an epoch for each line of its input.

    Args:
        parameters: their number, to check that all programs have the same network.
        epoch: `() -> (seconds, mean loss)`
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # other output is not an answer
    print(json.dumps({"parameters": int(parameters)}), file=answers, flush=True)
    for _ in sys.stdin:
        seconds, loss = epoch()
        print(json.dumps({"seconds": seconds, "loss": float(loss)}), file=answers, flush=True)
