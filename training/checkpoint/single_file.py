"""Checkpoints of one file: the safetensors format, with checksums.

Anyone can open such a file (https://github.com/huggingface/safetensors), and it holds data only,
whereas a pickle can run code. One file appears and disappears in one step; a folder of many files
needs more care, and takes 20 times as long for a small state. The format has no checksums and loads
a flipped bit without notice. So its metadata holds, besides

    "meta"       the caller's JSON: epoch, batch, config, ...
    "checksums"  JSON: name -> CRC-32 of that array's name, dtype, shape and bytes
    "checksum"   CRC-32 of the two above

Arrays are named by their path: "step", "params/stem/kernel", "optimizers/0/mu/stem/kernel"; running
sums that are too large for the meta "sums/epoch/confusion_matrix/0".
"""

import functools
import json
import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from training.checkpoint.naming import BEST
from training.common.files import atomic_write, chunks, hard_link

# Modules that import JAX are imported in functions: a checkpoint is read without it.

HEADER_LIMIT = 12 * 2**20  # bytes
COMMA_LIMIT = 100_000  # of the header, about six for an array: limits the time to parse it
DTYPES = {"BOOL": np.bool_, "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64}
DTYPES |= {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64}
DTYPES |= {"F16": np.float16, "F32": np.float32, "F64": np.float64, "C64": np.complex64}
DTYPES |= {"BF16": ml_dtypes.bfloat16, "F8_E5M2": ml_dtypes.float8_e5m2}
DTYPES |= {"F8_E4M3": ml_dtypes.float8_e4m3fn}
DTYPE_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
# Every error that a file which is no checkpoint can cause in `load`.
DAMAGE = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError)
DAMAGE += (TypeError, ValueError)


class SingleFile:
    """The format of one file. An instance writes; reading needs none.

    The next save writes a best checkpoint again that failed. `OrbaxFolder` has the same methods.

    Args:
        check: called before anything is written; it raises UserError where nothing may be.
    """

    collective = False  # whether every process writes its own parts, and so waits for the others

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self._unsaved_best = None  # buffers of the best checkpoint, until it is on disk

    def start(
        self,
        folder: Path | None,
        names: list[str],
        state: Any,
        meta: str,
        arrays: dict[str, np.ndarray] | None = None,
    ) -> Callable[[Callable[[], None]], None] | None:
        """Takes a snapshot of a state and starts to save it; all processes call it.

        Args:
            folder: the run folder; None in a process that only contributes its parts of the state.
            names: to save it under, at least one, each atomically, the best checkpoint's first.
            state: tree of arrays; they may be donated as soon as this returns.
            meta: text.
            arrays: more arrays on the host, by name.

        Returns:
            what the background thread calls to finish, with `Throttle.pause`; None: nothing to do.
            Like this function it raises UserError if the disk does not accept the checkpoint, and
            ValueError if the format cannot hold it.
        """
        from training.distributed.sharding import replicate

        state = replicate(state)  # all processes take part
        if folder is None:
            return None
        content = snapshot(state) | snapshot(arrays or {})
        return functools.partial(self._finish, folder, names, content, meta)

    @staticmethod
    def load(path: Path, for_devices: bool = False) -> tuple[dict[str, Any], dict]:
        """Returns ({name: NumPy array}, meta) of an intact file; any other raises one of DAMAGE.

        A format whose `put_on_devices` reads the arrays may return only their
        jax.ShapeDtypeStruct if `for_devices` is set.
        """
        with open(path, "rb") as file:
            meta, entries, checksums, size = _read_header(file)
            arrays, end = {}, 0
            for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
                dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
                _expect(len(shape) <= 64, "a shape is too long")
                begin, end = end, end + math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
                _expect(offsets == [begin, end] and end <= size, f"{name!r} is not in its place")
                arrays[name] = np.empty(shape, DTYPES[dtype])
                file.readinto(_bytes(arrays[name]))
                checksum = _checksum(name, dtype, shape, data=_bytes(arrays[name]))
                _expect(checksums[name] == checksum, f"{name!r} has changed")
            _expect(end == size, "it has bytes that belong to no array")
        return arrays, meta

    @staticmethod
    def load_meta(path: Path) -> dict:
        """Returns the meta of a file whose header is intact; any other raises one of DAMAGE."""
        with open(path, "rb") as file:
            return _read_header(file)[0]

    @staticmethod
    def put_on_devices(path: Path, arrays: dict[str, Any], mesh: Any) -> dict[str, Any]:
        """Returns the arrays of `load` on the devices, each sharded by `state_sharding`."""
        from training.distributed.sharding import put_state

        return put_state(arrays, mesh)

    def _finish(self, folder, names, arrays, meta, pause):
        content = encode(arrays, meta, pause)
        if BEST in names:
            self._unsaved_best = content
        self._check()
        # The best first: a numbered checkpoint states what the best metric is. If a kill left only
        # the numbered one, that would describe a best checkpoint that does not exist.
        files = {BEST: self._unsaved_best} if self._unsaved_best else {}
        files |= dict.fromkeys(names, content)
        for name, buffers in files.items():
            same = name != BEST and buffers is files.get(BEST)
            if not (same and hard_link(folder / BEST, folder / name)):
                atomic_write(folder / name, buffers, pause)
        self._unsaved_best = None


def write(path: str | Path, tree: Any, meta: dict) -> None:
    """Writes a tree of arrays and a meta that JSON can hold to one file, atomically.

    Raises:
        UserError: the file cannot be written; an existing one is unchanged.
        ValueError: two arrays have one name, or the format has no such dtype.
    """
    atomic_write(path, encode(snapshot(tree), json.dumps(meta)))


def snapshot(tree: Any) -> dict[str, np.ndarray]:
    """Returns the leaves by name, as NumPy arrays that do not change when the state is donated.

    On a CPU they are views and cost nothing: JAX donates no buffer that has a view.
    """
    import jax

    from training.common.trees import named_leaves

    named = named_leaves(tree)
    for leaf in named.values():
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    return {
        name: np.array(leaf, order="C", copy=None if isinstance(leaf, jax.Array) else True)
        for name, leaf in named.items()
    }


def encode(
    arrays: dict[str, np.ndarray], meta: str, pause: Callable[[], None] = lambda: None
) -> list:
    """Returns the file's content as a list of buffers; those of the arrays share their memory.

    Calls `pause` after each small piece of work.

    Raises:
        ValueError: a dtype that the format does not have, or too many or too long names.
    """
    entries, checksums, buffers, end = {}, {}, [], 0
    # Largest items first, so that each array begins at a multiple of its item's size.
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].itemsize):
        if array.dtype not in DTYPE_NAMES:
            raise ValueError(f"{name} has dtype {array.dtype}, expected one of {', '.join(DTYPES)}")
        dtype, shape = DTYPE_NAMES[array.dtype], list(array.shape)
        begin, end = end, end + array.nbytes
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        buffers.append(_bytes(array))
        checksums[name] = _checksum(name, dtype, shape, data=buffers[-1], pause=pause)
    sums = json.dumps(checksums)
    metadata = {"meta": meta, "checksums": sums, "checksum": str(_checksum(meta, sums))}
    header = json.dumps({"__metadata__": metadata, **entries}).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > HEADER_LIMIT:
        raise ValueError(f"names and meta take {len(header)} bytes, more than {HEADER_LIMIT}")
    if header.count(b",") > COMMA_LIMIT:
        raise ValueError(f"names and meta are more than {COMMA_LIMIT} values")
    return [len(header).to_bytes(8, "little"), header, *buffers]


def read_entries(file: IO[bytes]) -> tuple[dict[str, Any], int]:
    """Returns the header of a safetensors file, unchecked, and the size of what follows in bytes.

    The file is then at the first of these bytes. What is no such file raises one of DAMAGE.
    """
    length = int.from_bytes(file.read(8), "little")
    size = os.fstat(file.fileno()).st_size - 8 - length
    _expect(length > 0 and size >= 0, "its header is cut off")
    _expect(length <= HEADER_LIMIT, f"its header has {length} bytes, more than {HEADER_LIMIT}")
    header = file.read(length)
    _expect(header.count(b",") <= COMMA_LIMIT, "its header claims more than a run ever saves")
    return json.loads(header.decode(), object_pairs_hook=_unique), size


def _read_header(file):
    """Returns the meta, {name: entry}, {name: checksum}, and the size of all arrays in bytes."""
    entries, size = read_entries(file)
    metadata = entries.pop("__metadata__")
    meta, sums = metadata["meta"], metadata["checksums"]
    _expect(metadata["checksum"] == str(_checksum(meta, sums)), "its metadata has changed")
    meta, checksums = json.loads(meta), json.loads(sums)
    _expect(isinstance(meta, dict) and checksums.keys() == entries.keys(), "its parts disagree")
    return meta, entries, checksums, size


def reason(error: BaseException) -> str:
    """Returns an error's message, in at most 200 characters."""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return text[:200]


def _expect(condition, message):
    if not condition:
        raise ValueError(message)


def _unique(pairs):
    unique = dict(pairs)
    _expect(len(unique) == len(pairs), "a name occurs twice")
    return unique


def _bytes(array):
    return array.reshape(-1).view(np.uint8)


def _checksum(*words, data=b"", pause=lambda: None):
    checksum = zlib.crc32(json.dumps(words).encode())
    for chunk in chunks(data):
        checksum = zlib.crc32(chunk, checksum)
        pause()
    return checksum
