"""Your data sets, and the loader that reads them in batches.

A data set has `__len__` and `__getitem__(i) -> (input, target)`. One that also has
`__getitems__(indices) -> (inputs, targets)`, or `(inputs, targets, weight)`, is read a whole batch
at a time. It may name its `classes`. One that has `__iter__` alone is a stream, see
`data_loader.streams`.
"""

import logging
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_loader import base
from data_loader.base import BaseDataLoader
from data_loader.idx import MIRRORS, SPLITS, find_idx_pair, read_idx
from data_loader.image_folders import INSPECT, find_classes, refuse, summary
from data_loader.images import read_image
from data_loader.labels import ClassNumbers
from data_loader.streams import Records, is_stream, reads_batches
from data_loader.unchanged import check_unchanged, state_of
from data_loader.workers import Workers, read_samples
from utils import UserError, printable

LOG = logging.getLogger("main")


class IdxImages:
    """Grey images from IDX files, all in memory: MNIST, Fashion-MNIST, EMNIST or your own.

    The folder contains `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, and the same with
    `t10k` or `test` for `train`; each gzipped (".gz") or not, with any prefix ("emnist-letters-").

    Args:
        root: folder of the files.
        split: "train" or "test".
        download: None, or "mnist" to download missing files.

    Attributes:
        images: (examples, 1, height, width) uint8.
        labels: (examples,) int32.
        classes: "0", "1", ..., one for every label up to the highest.

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
                f"{labels_path}: {len(labels)} labels for the {len(images)} images in "
                f"{images_path}; expected one for each. Are both files from the same data set?"
            )
        self.images, self.labels = images[:, None], labels.astype(np.int32)
        self.classes = [str(label) for label in range(labels.max() + 1)]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int32]:
        """Returns an image, (1, height, width) uint8, and its label."""
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images at `indices`, (batch, 1, height, width) uint8, and their labels."""
        # `take` is a third faster than `images[indices]`.
        return self.images.take(indices, axis=0), self.labels.take(indices)

    def checksum(self) -> str:
        """Returns the CRC-32 of all images and labels, 8 hexadecimal digits."""
        return f"{zlib.crc32(self.labels.data, zlib.crc32(self.images.data)):08x}"


class ImageFolder:
    """Images in a folder per class, `root/<class>/`, decoded when they are read.

    They are read as a viewer shows them, see data_loader/images.py, and searched for in all that is
    in a class's folder, see data_loader/image_folders.py. Decoding takes time: set the DataLoader's
    `workers` to one thread per core.

    Args:
        root: folder that contains a folder per class; if the splits have folders of their own,
            that of one split ("pictures/train").
        size: [height, width] in pixels; every image is resized to it.
        mode: "L" for grey, "RGB" for colour.
        classes: names of the classes in the order of their labels, so that splits agree even if
            one lacks a class; None for all folders, sorted.
        share: [from, to], the part of each class's images to use, in an order given by a hash of
            their names: [0, 0.8] to train and [0.8, 1] to test on the same folder; None for all.
            Of two or more images, [0, x] and [x, 1] each have at least one.
        value_range: [black, white], the values between which images of more than 8 bits per channel
            are scaled: [0, 4095] for 12 bits in files of 16. None for all values of the file's
            bits; integers of 32 bits and floats need it.

    Attributes:
        paths: the images' paths.
        labels: (examples,) int32.
        classes: names of the classes.
        left_out: {reason: paths} of the files and folders that are not used; they are logged, too.

    Raises:
        UserError: a folder is missing or empty, a file that should be an image is none; on
            reading, an image is damaged.
    """

    def __init__(
        self,
        root: str | Path,
        size: Sequence[int],
        mode: str = "L",
        classes: Sequence[str] | None = None,
        share: Sequence[float] | None = None,
        value_range: Sequence[float] | None = None,
    ) -> None:
        _expect("ImageFolder: mode", mode, ["L", "RGB"])
        whole = isinstance(size, (list, tuple)) and all(isinstance(side, int) for side in size)
        if not whole or len(size) != 2 or min(size) < 1:
            raise UserError(
                f"ImageFolder: size is {size!r}; expected [height, width] in pixels, two whole "
                "numbers of at least 1."
            )
        if value_range is not None and not (_are_two_numbers(value_range)):
            raise UserError(
                f"ImageFolder: value_range is {value_range!r}; expected [black, white], two "
                "different numbers, such as [0, 4095]."
            )
        self.root, self.size, self.mode = Path(root), (size[0], size[1]), mode
        self.value_range = None if value_range is None else (value_range[0], value_range[1])
        if share is not None:
            _check_share(share)
        images, found = find_classes(root, classes)
        refuse(found.refused)
        self.left_out = found.left_out
        if self.left_out and (share is None or share[0] == 0):  # once for all shares of a folder
            LOG.warning("%s: not used: %s", printable(root), summary(self.left_out))
        if share is not None:
            images = {name: _select_share(paths, share) for name, paths in images.items()}
            if without := [name for name, paths in images.items() if not paths]:
                text = "%s: share %s has no picture of some classes, which have too few for it: %s"
                LOG.warning(text, printable(root), list(share), ", ".join(without))
        self.classes = list(images)
        self.paths = [path for paths in images.values() for path in paths]
        counts = [len(paths) for paths in images.values()]
        self.labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._states: np.ndarray | None = None  # of the files, once `checksum` has seen them all

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int32]:
        """Returns an image, (channels, height, width) uint8, and its label."""
        if self._states is not None:
            check_unchanged(self.paths[index], self._states[index])
        try:
            image = read_image(self.paths[index], self.size, self.mode, self.value_range)
        except UserError as error:
            raise UserError(f"{error}. Replace or delete it; {INSPECT}") from error
        return image, self.labels[index]

    def checksum(self) -> str:
        """Returns the CRC-32 of the names and sizes of all images, 8 hexadecimal digits."""
        names = [os.path.relpath(path, self.root).replace(os.sep, "/") for path in self.paths]
        self._states = np.array([state_of(path) for path in self.paths]).reshape(-1, 2)
        sizes = self._states[:, 0].tolist()
        return f"{zlib.crc32(repr(list(zip(names, sizes, strict=True))).encode()):08x}"


class DataLoader(BaseDataLoader):
    """Reads the batches of a data set.

    Why not grain: a position is two integers here, and the standard library's `map` keeps the
    order. For 512 samples from memory grain takes 8 ms, this loop 0.7 and `__getitems__` 0.06.

    Args:
        dataset: data set, see above.
        batch_size, shuffle, seed, validation_split, prefetch, sampler, examples_per_epoch,
            drop_last, shuffle_window, stratify, fold, folds, groups: see `BaseDataLoader`.
        workers: number of workers that read the samples of a batch in parallel, 0 for none.
        worker_kind: "thread" for reading that waits or releases the GIL (files, images, NumPy),
            "process" for slow Python. Processes start with the first batch and end with the
            loader; each has its own copy of the data set.
        collate: function of a list of samples that returns a batch, see `base.collate`. If given,
            samples are always read one by one.
        classes: the values that the data set has as labels, in the order of their classes: texts,
            or whole numbers that do not count from 0; or a dict from value to name. None: its
            labels are classes as they are.

    Attributes:
        whole_batches: whether batches are read by the data set's `__getitems__`.
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
        sampler: str | Sequence[float] | Callable[..., np.ndarray] | None = None,
        examples_per_epoch: int | None = None,
        drop_last: bool = False,
        shuffle_window: int = 1000,
        classes: Sequence[str | int] | dict[str, str] | None = None,
        stratify: bool = True,
        fold: int | None = None,
        folds: int | None = None,
        groups: str | Sequence[int | str] | None = None,
    ) -> None:
        if collate is not None and not callable(collate):
            raise UserError(
                f"DataLoader: collate is {collate!r}, expected a function; "
                'in a config {"name": "package.module:function"}.'
            )
        self.whole_batches = collate is None and reads_batches(dataset) and not is_stream(dataset)
        if prefetch is None:
            prefetch = 0 if self.whole_batches else 2
        order = (sampler, examples_per_epoch, drop_last, shuffle_window)
        parts = (stratify, fold, folds, groups)
        super().__init__(
            dataset, batch_size, shuffle, seed, validation_split, prefetch, *order, *parts
        )
        self.collate = collate or base.collate
        self.numbers = None if classes is None else ClassNumbers(classes)
        self.workers = self._whole_number("workers", workers, 0)
        if workers and self.whole_batches:
            raise UserError(
                f"{self._name}: workers is {workers}, but the data set reads whole batches with "
                "`__getitems__`, so they would be idle. Set workers to 0; prefetch reads ahead."
            )
        if workers and self.stream and not hasattr(dataset, "decode"):
            raise UserError(
                f"{self._name}: workers is {workers}, but the data set is a stream that yields "
                "samples as they are, so they would be idle. Set workers to 0."
            )
        _expect(f"{self._name}: worker_kind", worker_kind, ["thread", "process"])
        self._source = Records(dataset) if self.stream else dataset
        self._workers = Workers(workers, worker_kind, self._source, self._name) if workers else None

    def read(self, indices: np.ndarray) -> dict[str, Any]:
        """Reads the examples `indices`, (batch,) int64, or records of a stream, as a batch."""
        if self.whole_batches:
            inputs, targets, *weight = self.dataset.__getitems__(indices)
            batch = {"inputs": inputs, "targets": targets} | (
                {"weight": weight[0]} if weight else {}
            )
        elif self._workers:
            batch = self.collate(self._workers.read(indices))
        else:
            batch = self.collate(read_samples(self._source, indices))
        if self.numbers:
            batch["targets"] = self.numbers(
                batch["targets"], self._examples(indices), batch.get("weight")
            )
        return batch


def _expect(where, value, choices):
    if value not in choices:
        expected = " or ".join(repr(choice) for choice in choices)
        raise UserError(f"{where} is {value!r}; expected {expected}.")


def _check_share(share):
    if not _are_two_numbers(share) or not 0 <= share[0] < share[1] <= 1:
        raise UserError(
            f"ImageFolder: share is {share!r}; expected [from, to], two numbers between 0 and 1, "
            "such as [0, 0.8]."
        )


def _select_share(paths, share):
    """Returns a part of a class's paths, in the order of a hash of the files' names."""
    start, end = (_cut(one, len(paths)) for one in share)
    return sorted(paths, key=_hash_of_name)[start:end]


def _cut(share, count):
    """The number of paths before a share's end; between 0 and 1, some are left on both sides."""
    cut = round(share * count)
    return min(max(cut, 1), count - 1) if 0 < share < 1 and count > 1 else cut


def _hash_of_name(path):
    return zlib.crc32(os.fsencode(os.path.basename(path))), path


def _are_two_numbers(values):
    """Whether the value is a list or tuple of two different numbers."""
    numbers = isinstance(values, list | tuple) and all(
        isinstance(one, int | float) for one in values
    )
    return numbers and len(values) == 2 and values[0] != values[1]
