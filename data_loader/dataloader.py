"""The data sets, and the loader that reads them.

A data set has `__len__` and `__getitem__(i) -> (input, target)`. One that also has
`__getitems__(indices) -> (inputs, targets)` is read a whole batch at a time. It may name its
`classes`.
"""

import functools
import multiprocessing
import os
import pickle
import signal
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from data_loader import base
from data_loader.base import BaseDataLoader
from data_loader.idx import MIRRORS, SPLITS, find_idx_pair, read_idx
from data_loader.images import find_images, read_image
from utils import UserError

LOTS_PER_WORKER = 4  # a batch is dealt out in small lots, so that none waits for the slowest worker

_dataset = None  # in a worker process: its copy of the data set


class IdxImages:
    """Grey pictures from IDX files, all in memory: MNIST, Fashion-MNIST, EMNIST or your own.

    The folder holds `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, and the same with
    `t10k` or `test` for `train`; each gzipped (".gz") or not, with any prefix ("emnist-letters-").

    Args:
        root: folder of the files.
        split: "train" or "test".
        download: None, or "mnist" to fetch what is missing.

    Attributes:
        images: (examples, 1, height, width) uint8.
        labels: (examples,) int32.
        classes: digit strings, one for every label up to the highest.

    Raises:
        UserError: files are missing or damaged, or do not belong together.
    """

    def __init__(self, root: str | Path, split: str, download: str | None = None) -> None:
        _expect("IdxImages: split", split, [*SPLITS])
        _expect("IdxImages: download", download, [None, *MIRRORS])
        images_path, labels_path = find_idx_pair(Path(root), split, download)
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise UserError(
                f"{labels_path}: {len(labels)} labels for the {len(images)} pictures in "
                f"{images_path}; expected one for each. Are the two from one data set?"
            )
        self.images, self.labels = images[:, None], labels.astype(np.int32)
        self.classes = [str(label) for label in range(labels.max() + 1)]

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int32]:
        """Returns a picture, (1, height, width) uint8, and its label."""
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the pictures at `indices`, (batch, 1, height, width) uint8, and their labels."""
        # `take` is a third faster than `images[indices]`.
        return self.images.take(indices, axis=0), self.labels.take(indices)

    def checksum(self) -> str:
        """Returns a CRC-32 of all pictures and labels, in words."""
        return f"{zlib.crc32(self.labels.data, zlib.crc32(self.images.data)):08x}"


class ImageFolder:
    """Pictures in a folder per class, `root/<class>/*.png|jpg|jpeg`, decoded as they are read.

    Decoding takes time: give the DataLoader `workers`, a thread for every core.

    Args:
        root: folder of the classes' folders; of one split ("pictures/train"), if there are several.
        size: [height, width] in pixels that every picture is brought to.
        mode: "L" for grey, "RGB" for colour.
        classes: names of the classes in the order of their labels, so that splits agree even if
            one lacks a class; None for all folders, sorted.
        share: [from, to], which part of each class's pictures to take, in an order drawn from their
            names: of one folder, [0, 0.8] to train on and [0.8, 1] to test on; None for all.

    Attributes:
        paths: the pictures' paths.
        labels: (examples,) int32.
        classes: names of the classes.

    Raises:
        UserError: a folder is missing or empty; on reading, a picture is damaged.
    """

    def __init__(
        self,
        root: str | Path,
        size: Sequence[int],
        mode: str = "L",
        classes: Sequence[str] | None = None,
        share: Sequence[float] | None = None,
    ) -> None:
        _expect("ImageFolder: mode", mode, ["L", "RGB"])
        whole = isinstance(size, (list, tuple)) and all(isinstance(side, int) for side in size)
        if not whole or len(size) != 2 or min(size) < 1:
            raise UserError(
                f"ImageFolder: size is {size!r}; expected [height, width] in pixels, two whole "
                "numbers of at least 1."
            )
        self.size, self.mode = (size[0], size[1]), mode
        pictures = find_images(Path(root), classes)
        if share is not None:
            pictures = {name: _share(paths, share) for name, paths in pictures.items()}
        self.classes = list(pictures)
        self.paths = [path for paths in pictures.values() for path in paths]
        counts = [len(paths) for paths in pictures.values()]
        self.labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int32]:
        """Returns a picture, (channels, height, width) uint8, and its label."""
        return read_image(self.paths[index], self.size, self.mode), self.labels[index]

    def checksum(self) -> str:
        """Returns a CRC-32 of the names and sizes of all pictures, in words."""
        names = [f"{Path(path).parent.name}/{Path(path).name}" for path in self.paths]
        sizes = [os.path.getsize(path) for path in self.paths]
        return f"{zlib.crc32(repr(list(zip(names, sizes, strict=True))).encode()):08x}"


class DataLoader(BaseDataLoader):
    """Reads the batches of a data set.

    Why not grain: a position is two integers here, and the standard library's `map` keeps the
    order. For 512 samples from memory grain takes 8 ms, this loop 0.7 and `__getitems__` 0.06.

    Args:
        dataset: data set, see above.
        batch_size, shuffle, seed, validation_split, prefetch: see `BaseDataLoader`.
        workers: number of workers that read the samples of a batch in parallel, 0 for none.
        worker_kind: "thread" for reading that waits or leaves the interpreter (files, pictures,
            NumPy), "process" for slow Python. Processes start with the first batch and end with
            the loader; each has its own copy of the data set.
        collate: function of a list of samples that returns a batch, see `base.collate`. With one,
            samples are always read one by one.

    Attributes:
        whole_batches: whether a batch is read by the data set's `__getitems__`.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        validation_split: float = 0,
        prefetch: int | None = None,
        workers: int = 0,
        worker_kind: str = "thread",
        collate: Callable[[list], dict[str, Any]] | None = None,
    ) -> None:
        if collate is not None and not callable(collate):
            raise UserError(
                f"DataLoader: collate is {collate!r}, expected a function; "
                'in a config {"name": "package.module:function"}.'
            )
        self.whole_batches = collate is None and hasattr(dataset, "__getitems__")
        if prefetch is None:
            prefetch = 0 if self.whole_batches else 2
        super().__init__(dataset, batch_size, shuffle, seed, validation_split, prefetch)
        self.collate = collate or base.collate
        self.workers = self._whole_number("workers", workers, 0)
        if self.workers and self.whole_batches:
            raise UserError(
                f"{self._name}: workers is {workers}, but the data set reads whole batches with "
                "`__getitems__`, so they would be idle. Set workers to 0; prefetch reads ahead."
            )
        _expect(f"{self._name}: worker_kind", worker_kind, ["thread", "process"])
        if self.workers:
            make_pool = _threads if worker_kind == "thread" else _processes
            self._pool, self._read_lot = make_pool(self.workers, dataset, self._name)

    def read(self, indices: np.ndarray) -> dict[str, Any]:
        """Reads the examples `indices`, (batch,) int64, as a batch."""
        if self.whole_batches:
            inputs, targets = self.dataset.__getitems__(indices)
            return {"inputs": inputs, "targets": targets}
        if not self.workers:
            return self.collate(_read_samples(self.dataset, indices))
        lots = np.array_split(indices, min(len(indices), LOTS_PER_WORKER * self.workers))
        try:
            samples = [sample for lot in self._pool.map(self._read_lot, lots) for sample in lot]
        except BrokenExecutor as error:
            raise UserError(
                f"{self._name}: a worker process died; expected it to read samples. Either memory "
                "ran out (use fewer workers, or threads), or the data set's class cannot be "
                "imported by another process (keep it in a module, not in a notebook)."
            ) from error
        return self.collate(samples)


def _expect(where, value, choices):
    if value not in choices:
        expected = " or ".join(repr(choice) for choice in choices)
        raise UserError(f"{where} is {value!r}; expected {expected}.")


def _share(paths, share):
    """The part of a class's pictures; sorted by a hash of the name, which says nothing of them."""
    numbers = isinstance(share, list | tuple) and all(isinstance(one, int | float) for one in share)
    if not numbers or len(share) != 2 or not 0 <= share[0] < share[1] <= 1:
        raise UserError(
            f"ImageFolder: share is {share!r}; expected [from, to], two numbers between 0 and 1, "
            "such as [0, 0.8]."
        )
    start, end = (round(one * len(paths)) for one in share)
    return sorted(paths, key=lambda path: (zlib.crc32(Path(path).name.encode()), path))[start:end]


def _read_samples(dataset, indices):
    return [dataset[index] for index in indices.tolist()]


def _threads(workers, dataset, name):
    pool = ThreadPoolExecutor(workers, thread_name_prefix="reader")
    return pool, functools.partial(_read_samples, dataset)


def _processes(workers, dataset, name):
    try:
        pickle.dumps(dataset)
    except Exception as error:  # whatever the data set's parts raise
        raise UserError(
            f"{name}: the data set cannot be sent to a worker process ({error}); expected one that "
            "can be pickled. Leave out open files and lambdas, or set worker_kind to 'thread'."
        ) from error
    spawn = multiprocessing.get_context("spawn")  # JAX has threads, and those do not survive a fork
    pool = ProcessPoolExecutor(workers, spawn, initializer=_start_worker, initargs=(dataset,))
    return pool, _read_samples_here


def _start_worker(dataset):
    """Takes over the data set, and makes the process end with its parent and not before."""
    global _dataset
    _dataset = dataset
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def _read_samples_here(indices):
    return _read_samples(_dataset, indices)
