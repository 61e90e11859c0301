"""NumPy files as a data set, read from the disk batch by batch: they may be larger than memory."""

import logging
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from data_loader.unchanged import State, check_unchanged, state_of
from utils import UserError, nearest

LOG = logging.getLogger("main")
LOCAL_HEADER = 30  # bytes of a zip file's header before a member's name
MIB = 2**20  # bytes


class _MappedArray(NamedTuple):
    """An array in a file, of which no more is held in memory than is asked for."""

    path: str
    dtype: np.dtype
    shape: tuple
    offset: int  # bytes in front of it
    order: Literal["C", "F"]
    state: State  # of the file

    def rows(self, indices: Any) -> np.ndarray:
        """Returns the rows at `indices`; the file is mapped for this long, and memory freed."""
        check_unchanged(self.path, self.state)
        mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, self.order)
        return np.array(mapped[indices])


class Arrays:
    """Arrays of NumPy files; row i of each is example i.

        {"name": "Arrays", "args": {"inputs": "x.npy", "targets": "y.npy"}}
        {"name": "Arrays", "args": {"archive": "data.npz", "inputs": "x", "targets": "y"}}

    .npy files, and .npz archives written by `np.savez`, are read row by row as they are needed;
    those of `np.savez_compressed` are read into memory. Python objects are never unpickled.

    Args:
        inputs: a .npy file, or the name of an array in the archive; or a dict of such, for a
            network with several inputs.
        targets: the same for the targets.
        archive: a .npz file; None for .npy files.
        classes: names of the classes in the order of their labels; None for none.

    Raises:
        UserError: a file or array is not there, is damaged or holds objects, or lengths differ.
    """

    def __init__(
        self,
        inputs: str | Mapping[str, str],
        targets: str | Mapping[str, str],
        archive: str | Path | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self._parts = {"inputs": inputs, "targets": targets}
        self._arrays = {}
        for name in [one for part in self._parts.values() for one in _names(part)]:
            array = _in_archive(Path(archive), name) if archive else _in_file(Path(name))
            self._arrays[name] = _checked(array, f"{archive}: {name!r}" if archive else name)
        lengths = {name: array.shape[0] for name, array in self._arrays.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise UserError(f"Arrays: of different lengths: {listed}; expected a row per example")
        self._length = next(iter(lengths.values()))
        if classes is not None:
            self.classes = [str(one) for one in classes]

    def __len__(self) -> int:
        """Returns the number of examples."""
        return self._length

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Returns the inputs and the targets of an example."""
        return self.__getitems__(index)

    def __getitems__(self, indices: Any) -> tuple[Any, Any]:
        """Returns the inputs and the targets at `indices`, in their order."""
        inputs, targets = (self._read(part, indices) for part in self._parts.values())
        return inputs, targets

    def _read(self, part, indices):
        if isinstance(part, str):
            array = self._arrays[part]
            rows = array[indices] if isinstance(array, np.ndarray) else array.rows(indices)
            return _narrow(rows, part, indices)
        return {key: self._read(name, indices) for key, name in part.items()}


def _names(part):
    """The arrays that the inputs or the targets are made of."""
    names = [*part.values()] if isinstance(part, Mapping) else [part]
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"Arrays: got {part!r}; expected the name of an array or of a .npy file, or a dict of "
            "such"
        )
    return names


def _in_file(path: Path) -> _MappedArray:
    """The array of a .npy file."""
    with _read_errors(path), open(path, "rb") as file:
        return _mapped(path, file, 0, path.stat().st_size)


def _in_archive(path: Path, name: str) -> Any:
    """An array of a .npz file: mapped where it is stored as it is, else read."""
    with _read_errors(path), zipfile.ZipFile(path) as archive:
        known = [one.removesuffix(".npy") for one in archive.namelist()]
        if name not in known:
            hint = nearest(name, known)
            raise UserError(f"{path}: no array {name!r}{hint}; there are {', '.join(known)}")
        info = archive.getinfo(archive.namelist()[known.index(name)])
        if info.compress_type != zipfile.ZIP_STORED:
            LOG.info(
                "%s: %s is compressed, so it is read into memory (%.0f MiB); np.savez writes it "
                "so that it can stay on the disk", path, name, info.file_size / MIB,
            )  # fmt: skip
            with archive.open(info) as file:
                return np.lib.format.read_array(file, allow_pickle=False)
        with open(path, "rb") as file:
            file.seek(info.header_offset)
            header = file.read(LOCAL_HEADER)
            lengths = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
            start = info.header_offset + LOCAL_HEADER + sum(lengths)
            file.seek(start)
            return _mapped(path, file, start, start + info.file_size)


def _mapped(path, file, start, end):
    """The array whose header is at the file's position, in the bytes from `start` to `end`."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0}
    shape, fortran, dtype = read.get(version, np.lib.format.read_array_header_2_0)(file)
    if dtype.hasobject:
        raise UserError(f"{path}: holds Python objects, which are not unpickled; save numbers")
    size, offset = math.prod(shape) * dtype.itemsize, file.tell()
    if offset + size > end:
        raise UserError(
            f"{path}: damaged: {end - offset} bytes for an array {dtype} {shape}, expected {size}"
        )
    return _MappedArray(str(path), dtype, shape, offset, "F" if fortran else "C", state_of(path))


def _checked(array, where):
    """Refuses what has no rows of numbers."""
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise UserError(f"{where}: an array of {array.dtype}; expected numbers")
    if not array.shape or not math.prod(array.shape):
        raise UserError(f"{where}: has the shape {array.shape}; expected (examples, ...)")
    return array


def _narrow(array, name, indices):
    """Returns whole numbers of 64 bits as int32, which is what a device computes with."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8:
        return array
    narrow = array.astype(np.int32)
    wrong = np.reshape(narrow != array, (np.size(indices), -1)).any(-1)
    if wrong.any():
        row = np.ravel(indices)[wrong.argmax()]
        raise UserError(
            f"{name}, row {row}: a whole number that int32 does not hold, and devices compute with "
            "no larger ones; save it as float32, or count from 0"
        )
    return narrow


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Raises what goes wrong while a file is read as a UserError."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # NumPy and zipfile raise OSError, ValueError, BadZipFile and more
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: cannot be read as a file of NumPy: {reason}") from error
