"""What the tests share: where the project is, a small piece of the real MNIST, comparisons."""

import functools
import gzip
import struct
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[2]
TRAIN_EXAMPLES, TEST_EXAMPLES, BATCH_SIZE = 1000, 300, 128  # 8 batches, the last one ragged
few = functools.partial(  # settings that try the same examples in both sets
    settings,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def write_mnist(folder, train, test):
    """Writes the first examples of the real MNIST as plain IDX files."""
    folder.mkdir(exist_ok=True)
    for prefix, count in (("train", train), ("t10k", test)):
        images, labels = (
            gzip.decompress((ROOT / "data" / f"{prefix}-{kind}-ubyte.gz").read_bytes())
            for kind in ("images-idx3", "labels-idx1")
        )
        header = struct.pack(">4i", 2051, count, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images[16:][: count * 784])
        header = struct.pack(">2i", 2049, count)
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels[8:][:count])


def by_set(fast, full):
    """Returns what is for the set of tests that runs: for the fast set `fast`, else `full`."""
    return full if settings.get_current_profile_name() == "full" else fast


def examples(count):
    """Settings of hypothesis with `count` examples in the full set, a quarter in the fast set."""
    return settings(max_examples=by_set(count // 4, count))


def same_arrays(first, second):
    """Whether two dicts of arrays hold the same bits."""
    return first.keys() == second.keys() and all(
        np.asarray(first[name]).tobytes() == np.asarray(second[name]).tobytes() for name in first
    )
