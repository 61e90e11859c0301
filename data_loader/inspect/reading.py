"""Reads every example of a split, in parallel, and keeps of each only what the page needs."""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from data_loader.images import open_image, shown_size
from data_loader.streams import reads_batches
from data_loader.workers import read_ahead
from utils import UserError, printable

CHUNK, WHOLE_CHUNK = 32, 2048  # examples read at once: one by one, and by `__getitems__`
THUMBNAIL = 16  # pixels per side of what near duplicates are compared by
SMALLEST = 64  # pixels per side of an image file, below which a perceptual hash says nothing


@dataclass
class Field:
    """What is known of an array of the examples, such as "inputs" or "targets.box"."""

    dtypes: Counter = field(default_factory=Counter)
    shapes: Counter = field(default_factory=Counter)  # of one example
    low: float = np.inf  # of the finite values
    high: float = -np.inf
    not_finite: list = field(default_factory=list)  # indices of examples
    levels: np.ndarray | None = None  # (channels, 256) counts, of uint8 images
    lengths: dict = field(default_factory=dict)  # {length: index of an example}, of sequences


@dataclass
class Split:
    """What was read of a split."""

    name: str
    dataset: Any
    examples: int = 0
    unreadable: dict = field(default_factory=dict)  # {index: reason}
    fields: dict = field(default_factory=dict)  # {name: Field}
    rows: dict = field(default_factory=dict)  # {index: (digest, label, (hash, thumbnail) or None)}
    formats: Counter = field(default_factory=Counter)  # of image files
    modes: Counter = field(default_factory=Counter)
    sizes: Counter = field(default_factory=Counter)  # (height, width)

    @property
    def labels(self) -> dict:
        """{index: label} of the examples whose target is a whole number or a text."""
        return {index: row[1] for index, row in self.rows.items() if row[1] is not None}

    def name_of(self, index: int) -> str:
        """Returns an example's file, or its number in the data set."""
        paths, root = (getattr(self.dataset, name, None) for name in ("paths", "root"))
        if paths is None:
            return f"example {index}"
        return str(paths[index]) if root is None else os.path.relpath(paths[index], root)


def read_split(name: str, loader: Any, progress: Callable[[int], Any]) -> Split:
    """Reads all examples of a loader once.

    Args:
        name: of the split.
        loader: its loader.
        progress: called with the number of examples that have been read since the last call.

    Returns:
        The Split.
    """
    split = Split(name, loader.dataset)
    for rows, batch, unreadable, files in _chunks(loader):
        split.unreadable |= unreadable
        split.examples += len(rows) + len(unreadable)
        if batch is not None:
            _take(split, rows, batch)
        for row, facts in files.items():
            kind, mode, size, near = facts
            split.formats[kind] += 1
            split.modes[mode] += 1
            split.sizes[size] += 1
            if row in split.rows:
                split.rows[row] = (*split.rows[row][:2], near)
        progress(len(rows) + len(unreadable))
    return split


def _chunks(loader) -> Iterator[tuple]:
    """Yields (indices, batch, {index: why it cannot be read}, {index: facts of its file})."""
    if loader.stream:
        yield from _stream_chunks(loader)
        return
    whole = reads_batches(loader.dataset)
    indices = loader.indices
    chunks = np.array_split(indices, -(-len(indices) // (WHOLE_CHUNK if whole else CHUNK)) or 1)
    # A data set of the user's is read by several threads only where its loader does so as well.
    ours = type(loader.dataset).__module__.startswith("data_loader.")
    parallel = ours or getattr(loader, "workers", 0)
    threads = os.cpu_count() or 1 if parallel else 1
    for parts in read_ahead(lambda chunk: _read_chunk(loader, chunk), chunks, 2 * threads, threads):
        yield from parts


def _stream_chunks(loader):
    start = 0
    try:
        for batch in loader.batches(epoch=1):
            real = np.asarray(batch["weight"]).reshape(len(batch["weight"]), -1).any(-1)
            count = int(np.flatnonzero(real).max(initial=-1)) + 1
            yield range(start, start + count), _first(batch, count), {}, {}
            start += count
    except UserError as error:
        yield [], None, {start: str(error)}, {}


def _read_chunk(loader, indices):
    """Reads examples together, and one by one where that fails; returns a list of chunks."""
    try:
        batch = loader.read(indices)
    except Exception as error:  # a data set may raise anything
        if len(indices) > 1:
            return [part for index in indices for part in _read_chunk(loader, np.array([index]))]
        return [([], None, {int(indices[0]): _reason(loader.dataset, int(indices[0]), error)}, {})]
    return [(indices.tolist(), batch, {}, _file_facts(loader.dataset, indices, batch))]


def _reason(dataset, index, error):
    """Why an example cannot be read, without its name and without advice."""
    if not isinstance(error, UserError):
        return repr(error)
    paths = getattr(dataset, "paths", None)
    text = str(error.__cause__ if isinstance(error.__cause__, UserError) else error)
    return text if paths is None else text.removeprefix(f"{printable(paths[index])}: ")


def _file_facts(dataset, indices, batch):
    """{index: (format, mode, size, (hash, thumbnail) or None)} of a data set of image files."""
    paths = getattr(dataset, "paths", None)
    inputs = batch["inputs"]
    images = isinstance(inputs, np.ndarray) and inputs.dtype == np.uint8 and inputs.ndim == 4
    if paths is None or not images:
        return {}
    facts = {}
    for index, pixels in zip(indices.tolist(), inputs, strict=True):
        with contextlib.suppress(UserError), open_image(paths[index]) as image:
            near = _near(pixels) if min(image.size) >= SMALLEST else None
            facts[index] = (image.format, image.mode, shown_size(image), near)
    return facts


def _near(pixels):
    """The perceptual hash and a thumbnail of an image, or None without the library for it."""
    try:
        import imagehash
    except ImportError:
        return None
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    image = image.convert("L")
    bits = imagehash.dhash(image).hash.ravel()
    small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return int(np.packbits(bits).view(">u8")[0]), np.asarray(small)


def _take(split, rows, batch):
    """Adds what a chunk says to a Split."""
    for name, array in _leaves("inputs", batch["inputs"]) + _leaves("targets", batch["targets"]):
        _measure(split.fields.setdefault(name, Field()), rows, np.asarray(array))
    inputs = [np.ascontiguousarray(array) for _, array in _leaves("inputs", batch["inputs"])]
    labels = labels_of(batch["targets"], len(rows))
    for position, row in enumerate(rows):
        digest = hashlib.blake2b(digest_size=8)
        for array in inputs:
            digest.update(str(array.shape[1:]).encode() if array.ndim > 3 else b"")
            digest.update(array[position].tobytes())
        split.rows[row] = (digest.digest(), labels[position], None)


def labels_of(targets: Any, count: int) -> list:
    """Returns the classes that targets name, whole numbers or texts; else None for each."""
    targets = np.asarray(targets) if not isinstance(targets, dict) else None
    kinds = "iubUS"
    if targets is None or targets.ndim != 1 or targets.dtype.kind not in kinds:
        return [None] * count
    return targets.tolist()


def _measure(facts, rows, array):
    facts.dtypes[str(array.dtype)] += len(rows)
    facts.shapes[array.shape[1:]] += len(rows)
    if array.ndim > 1 and len(array):
        facts.lengths.setdefault(array.shape[1], rows[0])
    if array.dtype.kind not in "iufb" or not array.size:
        return
    if array.dtype == np.uint8 and array.ndim == 4:  # a batch of images
        channels = np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)
        levels = np.stack([np.bincount(one, minlength=256) for one in channels])
        if facts.levels is None or facts.levels.shape == levels.shape:
            facts.levels = levels if facts.levels is None else facts.levels + levels
        array = np.flatnonzero(levels.any(0))
    elif array.dtype.kind == "f":
        finite = np.isfinite(array)
        if not finite.all():
            bad = ~finite.reshape(len(array), -1).all(-1)
            facts.not_finite += [rows[position] for position in np.flatnonzero(bad)]
            array = array[finite]
    if array.size:
        facts.low = min(facts.low, float(array.min()))
        facts.high = max(facts.high, float(array.max()))


def _leaves(name, tree):
    """Returns [(name, array)] of an array or of a dict of arrays."""
    if isinstance(tree, dict):
        return [leaf for key, value in tree.items() for leaf in _leaves(f"{name}.{key}", value)]
    return [(name, tree)]


def _first(tree, count):
    if isinstance(tree, dict):
        return {key: _first(value, count) for key, value in tree.items()}
    return np.asarray(tree)[:count]
