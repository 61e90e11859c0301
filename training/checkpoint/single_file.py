"""The file of a checkpoint: the safetensors format, with checksums.

The format (https://github.com/huggingface/safetensors) has none, and loads a flipped bit without a
word. So its metadata holds, besides

    "meta"       the caller's JSON: epoch, batch, config, ...
    "checksums"  JSON: name -> CRC-32 of that array's name, dtype, shape and bytes
    "checksum"   CRC-32 of the two above
"""

import json
import math
import os
import zlib

import ml_dtypes
import numpy as np

from training.common.files import chunks

HEADER_LIMIT = 12 * 2**20  # bytes
COMMA_LIMIT = 100_000  # of the header, about six for an array: what reading it costs in time
LISTED = 10  # names that an error shows of each kind
DTYPES = {"BOOL": np.bool_, "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64}
DTYPES |= {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64}
DTYPES |= {"F16": np.float16, "F32": np.float32, "F64": np.float64, "C64": np.complex64}
DTYPES |= {"BF16": ml_dtypes.bfloat16, "F8_E5M2": ml_dtypes.float8_e5m2}
DTYPES |= {"F8_E4M3": ml_dtypes.float8_e4m3fn}
DTYPE_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
# All that bytes which are no checkpoint can provoke in `load`.
DAMAGE = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError)
DAMAGE += (TypeError, ValueError)


def encode(arrays, meta, rest=lambda: None):
    """Returns the file as a list of buffers; those of the arrays are their own memory.

    Args:
        arrays: dict of name -> NumPy array.
        meta: text.
        rest: called again and again during the work.
    """
    entries, checksums, pieces, end = {}, {}, [], 0
    # Largest items first, so that each array begins at a multiple of its item's size.
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].itemsize):
        if array.dtype not in DTYPE_NAMES:
            raise ValueError(f"{name} has dtype {array.dtype}, expected one of {', '.join(DTYPES)}")
        dtype, shape = DTYPE_NAMES[array.dtype], list(array.shape)
        begin, end = end, end + array.nbytes
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        pieces.append(_bytes(array))
        checksums[name] = _checksum(name, dtype, shape, data=pieces[-1], rest=rest)
    sums = json.dumps(checksums)
    metadata = {"meta": meta, "checksums": sums, "checksum": str(_checksum(meta, sums))}
    header = json.dumps({"__metadata__": metadata, **entries}).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > HEADER_LIMIT:
        raise ValueError(f"names and meta take {len(header)} bytes, more than {HEADER_LIMIT}")
    if header.count(b",") > COMMA_LIMIT:
        raise ValueError(f"names and meta are more than {COMMA_LIMIT} values")
    return [len(header).to_bytes(8, "little"), header, *pieces]


def load(path):
    """Returns (arrays, meta) of a whole file; any other raises one of DAMAGE."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size - 8 - length  # of all arrays, in bytes
        _expect(0 < length <= HEADER_LIMIT and size >= 0, "its header is cut off or too long")
        header = file.read(length)
        _expect(header.count(b",") <= COMMA_LIMIT, "its header claims more than a run ever saves")
        header = json.loads(header.decode(), object_pairs_hook=_unique)
        metadata = header.pop("__metadata__")
        meta, sums = metadata["meta"], metadata["checksums"]
        _expect(metadata["checksum"] == str(_checksum(meta, sums)), "its metadata has changed")
        meta, checksums = json.loads(meta), json.loads(sums)
        _expect(isinstance(meta, dict) and checksums.keys() == header.keys(), "its parts disagree")
        arrays, end = {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
            _expect(len(shape) <= 64, "a shape is too long")
            begin, end = end, end + math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
            _expect(offsets == [begin, end] and end <= size, f"{name!r} is not in its place")
            arrays[name] = np.empty(shape, DTYPES[dtype])
            file.readinto(_bytes(arrays[name]))
            checksum = _checksum(name, dtype, shape, data=_bytes(arrays[name]))
            _expect(checksums[name] == checksum, f"{name!r} has changed")
        _expect(end == size, "it has bytes that belong to nothing")
    return arrays, meta


def reason(error):
    """Returns what an error says, in at most 200 characters."""
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return text[:200]


def some(names):
    """Returns the first few names as one string."""
    shown = ", ".join(list(names)[:LISTED]) or "none"
    return shown if len(names) <= LISTED else f"{shown}, ... ({len(names)} in all)"


def _expect(true, otherwise):
    if not true:
        raise ValueError(otherwise)


def _unique(pairs):
    unique = dict(pairs)
    _expect(len(unique) == len(pairs), "a name stands there twice")
    return unique


def _bytes(array):
    return array.reshape(-1).view(np.uint8)


def _checksum(*words, data=b"", rest=lambda: None):
    checksum = zlib.crc32(json.dumps(words).encode())
    for chunk in chunks(data):
        checksum = zlib.crc32(chunk, checksum)
        rest()
    return checksum
