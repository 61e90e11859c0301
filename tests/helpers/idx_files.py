"""IDX files for the tests."""

import functools
import gzip
import struct

import numpy as np

PAIR = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
compress = functools.partial(gzip.compress, mtime=0)  # the same bytes in every process


def idx(array):
    """Returns the bytes of an IDX file, written independently of the reader."""
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return header + array.astype(np.uint8).tobytes()


def write_pair(folder, images, labels, start="train-", packed=False):
    """Writes images and labels as IDX files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in [
        (f"{start}images-idx3-ubyte", images),
        (f"{start}labels-idx1-ubyte", labels),
    ]:
        data = idx(np.asarray(array))
        (folder / (name + packed * ".gz")).write_bytes(compress(data) if packed else data)
