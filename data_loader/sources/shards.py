"""Tar files as a stream, in the layout of WebDataset: files of one name are one example.

    000.tar:  dog/0001.jpg  dog/0001.cls  dog/0002.jpg  dog/0002.cls ...

A record is where an example's files are, not their content: that is read by the workers.
"""

import functools
import glob
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_loader.images import read_image
from data_loader.unchanged import check_unchanged, state_of
from utils import UserError

BLOCK = 512  # bytes, of which a tar file is made
NUMBERS = ("cls", "index", "id")  # endings of a number as text
JSON, ARRAY = ("json",), ("npy",)
GZIP = b"\x1f\x8b"


class _Record(NamedTuple):
    """The files of an example.

    Attributes:
        shard: path of the tar file.
        key: their name without ending.
        files: {ending: (offset in bytes, size in bytes)}
    """

    shard: str
    key: str
    files: dict[str, tuple[int, int]]


class TarShards:
    """Examples in tar files, read one file after the other; they may be larger than memory.

        {"name": "TarShards", "args": {
            "shards": "data/train-*.tar", "inputs": "jpg", "targets": "cls", "size": [64, 64]}}

    Args:
        shards: pattern of the tar files' paths, or a list of such; sorted by name.
        inputs: ending of the file that is the input, without a dot; several that may stand for it
            as "jpg;png".
        targets: the same for the target.
        size: [height, width] of images, see `data_loader.images.read_image`.
        mode: "L" for grey images, "RGB" for colour.
        classes: names of the classes in the order of their labels; None for none.
        decode: function of {ending: content in bytes} that returns (input, target), in place of
            the decoding here: "cls" is a whole number, "json" and "npy" are those, "txt" is not
            decoded, everything else an image.

    Raises:
        UserError: there is no such file; on reading, a file is damaged, or an example lacks one.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        inputs: str = "jpg;jpeg;png",
        targets: str = "cls",
        size: Sequence[int] | None = None,
        mode: str = "RGB",
        classes: Sequence[str] | None = None,
        decode: Callable[[dict[str, bytes]], tuple[Any, Any]] | None = None,
    ) -> None:
        patterns = [shards] if isinstance(shards, str) else list(shards)
        self.shards = []
        for pattern in patterns:
            found = sorted(glob.glob(pattern))
            if not found:
                raise UserError(f"{pattern}: no such file; expected tar files")
            self.shards += found
        self._states = {path: state_of(path) for path in self.shards}
        self._endings = (inputs.split(";"), targets.split(";"))
        self._size = None if size is None else (size[0], size[1])
        self._mode, self._own_decode = mode, decode
        if classes is not None:
            self.classes = [str(one) for one in classes]

    def __len__(self) -> int:
        """Returns the number of examples; it is counted once, by the headers of all files."""
        return self._length

    @functools.cached_property
    def _length(self):
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[_Record]:
        """Returns an iterator over all records, in the order of the files' names."""
        return _Records(self.shards, self._endings, self._own_decode is None)

    def iterate(self, random: np.random.Generator) -> Iterator[_Record]:
        """Returns an iterator over all records, the tar files in an order of their own."""
        shards = [self.shards[index] for index in random.permutation(len(self.shards))]
        return _Records(shards, self._endings, self._own_decode is None)

    def decode(self, record: _Record) -> tuple[Any, Any]:
        """Returns the input and the target of a record."""
        where = f"{record.shard}: {record.key}"
        check_unchanged(record.shard, self._states[record.shard])
        if self._own_decode is not None:
            return self._own_decode(_contents(record, record.files))
        chosen = [next(one for one in names if one in record.files) for names in self._endings]
        contents = _contents(record, chosen)
        inputs, targets = (self._value(one, contents[one], f"{where}.{one}") for one in chosen)
        return inputs, targets

    def checksum(self) -> str:
        """Returns the CRC-32 of the names and sizes of all tar files, 8 hexadecimal digits."""
        files = [(os.path.basename(path), os.path.getsize(path)) for path in self.shards]
        return f"{zlib.crc32(repr(files).encode()):08x}"

    def _value(self, ending, content, where):
        """Returns what a file holds, as its ending says."""
        kind = ending.rpartition(".")[2].lower()
        try:
            if kind in NUMBERS:
                return np.int32(int(content))
            if kind in JSON:
                return np.asarray(json.loads(content))
            if kind in ARRAY:
                return np.load(io.BytesIO(content), allow_pickle=False)
        except (ArithmeticError, EOFError, MemoryError, RecursionError, ValueError) as error:
            raise UserError(f"{where}: cannot be read as {kind}: {error}") from error
        if self._size is None or kind == "txt":
            raise UserError(
                f"{where}: not decoded here; expected cls, json, npy, or an image and its `size`. "
                "For anything else name a function of your own as `decode`"
            )
        try:
            return read_image(io.BytesIO(content), self._size, self._mode)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error


class _Records:
    """The records of some tar files one after the other, and where it is: (shard, offset)."""

    def __init__(self, shards, endings, complete):
        self._shards, self._endings, self._complete = shards, endings, complete
        self.set_state([0, 0])

    def __iter__(self):
        return self

    def __next__(self):
        while self._shard < len(self._shards):
            if self._groups is None:
                self._groups = _groups(self._shards[self._shard], self._offset)
            record, self._offset = next(self._groups, (None, 0))
            if record is not None:
                self._check(record)
                return record
            self._shard, self._groups = self._shard + 1, None
        raise StopIteration

    def get_state(self):
        """Returns the number of the tar file, and the offset in it of the next example."""
        return [self._shard, self._offset]

    def set_state(self, state):
        """Goes to where a state is from."""
        (self._shard, self._offset), self._groups = state, None

    def _check(self, record):
        """Refuses an example that lacks a file: it would be left out without a word."""
        for names in self._endings if self._complete else ():
            if not any(name in record.files for name in names):
                raise UserError(
                    f"{record.shard}: {record.key}: has the files {sorted(record.files)}, none of "
                    f"them {' or '.join(names)}; expected one. The files of an example follow "
                    "each other"
                )


def _groups(path, offset):
    """Yields (_Record, offset behind it) of the examples of a tar file from an offset on."""
    key, files, end = "", {}, offset
    for member in _members(path, offset):
        folder, name = os.path.split(member.name)
        stem, _, ending = name.partition(".")
        if not stem:  # ._1.jpg of macOS and its like
            continue
        if not member.isreg() or member.issparse():
            raise UserError(f"{path}: {member.name} is a link or sparse; expected plain files")
        if key != os.path.join(folder, stem) and files:
            yield _Record(path, key, files), member.offset
            files = {}
        key = os.path.join(folder, stem)
        if ending in files:
            raise UserError(f"{path}: {member.name} is in it twice; expected each file once")
        files[ending], end = (member.offset_data, member.size), member.offset_data + member.size
    if files:
        yield _Record(path, key, files), -(-end // BLOCK) * BLOCK


def _members(path, offset):
    """Yields the members of a tar file from an offset on, and refuses one that is cut."""
    try:
        with open(path, "rb") as file:
            if file.read(2) == GZIP:
                raise UserError(f"{path}: compressed; unpack it, so that it is read from any place")
            file.seek(offset)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    if not member.isdir():
                        yield member
                file.seek(tar.offset)
                _check_end(path, file, tar.offset)
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{path}: damaged, or not a tar file: {error}") from error


def _check_end(path, file, offset):
    """Refuses a tar file that does not end in zeros: it is cut, damaged, or several in one."""
    block = file.read(BLOCK)
    if len(block) < BLOCK or any(block):
        raise UserError(f"{path}: damaged, or cut, at byte {offset}; copy it again")
    while content := file.read(2**20):
        if any(content):
            raise UserError(
                f"{path}: more data behind its end, at byte {offset}; are these several tar files "
                "in one? Then make a file of each"
            )


def _contents(record, endings):
    """Returns {ending: bytes} of some files of a record."""
    contents = {}
    with open(record.shard, "rb") as file:
        for ending in endings:
            offset, size = record.files[ending]
            file.seek(offset)
            contents[ending] = file.read(size)
            if len(contents[ending]) < size:
                raise UserError(f"{record.shard}: {record.key}.{ending}: cut; copy the file again")
    return contents
