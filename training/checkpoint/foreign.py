"""Weights that another program wrote, as safetensors: one file, or several with an index.

A file with "weight_map" in its JSON, such as model.safetensors.index.json, names the files of a
model that is split. Floating-point numbers of any size become float32. A pickle is never read, as
that can run code.
"""

import hashlib
import json
import math
import shlex
from pathlib import Path

import ml_dtypes
import numpy as np

from training.checkpoint.naming import listed
from training.checkpoint.single_file import DAMAGE, DTYPES, read_entries, reason
from training.common.files import disk_errors
from utils import UserError

PICKLES = (b"PK\x03\x04", b"\x80")  # how files of torch.save begin
SMALL = (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
OTHERS = {  # how other files begin, or end: what they are, and how to get a safetensors file
    b"\x89HDF": "HDF5, as Keras writes; docs/fine_tuning.md has the lines that convert it",
    ".keras": "Keras'; docs/fine_tuning.md has the lines that convert it",
    ".npz": "NumPy's: safetensors.numpy.save_file(dict(numpy.load(PATH)), NEW)",
    ".msgpack": "Flax's: read it with flax.serialization.msgpack_restore and save its arrays",
    b"GGUF": "GGUF, of quantised weights: take the model's safetensors file",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: git lfs pull",
    (
        b"<!DOC",
        b"<!doc",
        b"<html",
        b"<?xml",
    ): "HTML or XML, such as the page of an error: download the file itself",
}
INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"  # of Hugging Face's folders
FLOAT32 = np.dtype(np.float32)
STRIP = 64  # rows that are copied at a time
INDEX_LIMIT = 64 * 2**20  # bytes
SAVE = (
    'python -c "import sys, torch, safetensors.torch as s; '
    "d = torch.load(sys.argv[1], map_location='cpu', weights_only=True); "
    "d = d.get('state_dict', d); "
    's.save_file({{k: v.clone().contiguous() for k, v in d.items()}}, sys.argv[2])" {0} {1}'
)


def in_folder(path: Path) -> Path:
    """Returns the file of a folder as Hugging Face has it, else the path itself."""
    files = (path / INDEX, path / WHOLE)
    return next((file for file in files if path.is_dir() and file.is_file()), path)


def is_foreign(path: Path) -> bool:
    """Whether this is a file that another program wrote.

    Raises:
        UserError: it is a pickle, or of another format.
    """
    if not path.is_file():
        return False
    with disk_errors(path), open(path, "rb") as file:
        begin = file.read(32)
        for sign, words in OTHERS.items():
            if path.suffix == sign if isinstance(sign, str) else begin.startswith(sign):
                raise UserError(f"{path}: expected a safetensors file; this is {words}")
        if begin.startswith(PICKLES) and begin[8:9] != b"{":
            new = path.with_suffix(".safetensors")
            new = new if new != path else path.with_stem(f"{path.stem}_converted")
            names = (path.name, new.name)
            command = SAVE.format(*map(shlex.quote, names))
            raise UserError(
                f"{path}: this looks like a pickle (a file of torch.save), and reading one can run "
                "code, so it is not read; expected a safetensors file. Where PyTorch is installed "
                f"and the file holds a state_dict: {command}"
            )
        if _is_index(path):
            return True
        file.seek(0)
        try:
            entries, _ = read_entries(file)
        except DAMAGE:
            return path.suffix == ".safetensors"
        return "checksums" not in entries.get("__metadata__", {})


def read_foreign(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays, {name as in the file: array}; floating-point numbers become float32.

    Raises:
        UserError: see `open_foreign` and `as_float32`.
    """
    return {name: as_float32(array, name, path) for name, array in open_foreign(path).items()}


def open_foreign(path: Path) -> dict[str, np.ndarray]:
    """Returns all arrays, {name as in the file: array}, which are read when they are used.

    Raises:
        UserError: a file is missing, cut, no such file, or has a dtype that NumPy has not.
    """
    arrays, missing = {}, []
    for file in files_of(path):
        arrays |= _arrays(file)
    if not _is_index(path):
        return arrays
    index = _read_index(path)
    if missing := [name for name in index if name not in arrays]:
        raise UserError(f"{path}: the files it names do not have {listed(missing)}")
    return {name: arrays[name] for name in index}


def files_of(path: Path) -> list[Path]:
    """Returns the files with the arrays: those that an index names, else the file itself."""
    if not _is_index(path):
        return [path]
    return [path.parent / name for name in dict.fromkeys(_read_index(path).values())]


def checksums(path: Path) -> dict[str, str]:
    """Returns {name of a file: its SHA-256} of `files_of` a path."""
    sums = {}
    for one in files_of(path):
        with open(one, "rb") as file:
            sums[one.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def is_floating(dtype: np.dtype) -> bool:
    """Whether numbers are floating-point ones, of any size."""
    return dtype.kind == "f" or dtype in SMALL


def as_float32(array: np.ndarray, name: str, path: object, dtype: np.dtype = FLOAT32) -> np.ndarray:
    """Returns a copy of an array in memory, of a floating-point one in float32 or another `dtype`.

    Raises:
        UserError: it has a number that is not finite, or not in this dtype.
    """
    floating = is_floating(array.dtype)
    copy, bad = np.empty(array.shape, dtype if floating else array.dtype), 0
    # A strip of a transposed array is some of its rows in the file, which then are in the cache.
    axis = 0 if array.flags.c_contiguous else array.ndim - 1
    for start in range(0, array.shape[axis] if array.ndim else 1, STRIP):
        strip = (slice(None),) * axis + (slice(start, start + STRIP),) if array.ndim else ()
        source = array[strip]
        with np.errstate(over="ignore"):  # of float64
            source = source.astype(copy.dtype, copy=False)
        if floating and not (finite := np.isfinite(source)).all():
            bad += int((~finite).sum())
        copy[strip] = source
    if bad:
        words = "" if dtype == FLOAT32 else f" in {dtype}"
        raise UserError(
            f"{path}: {name} has numbers that are not finite{words}, {bad} of {array.size}. Take "
            "another file, or all but this part"
        )
    return copy


def _is_index(path):
    """Whether a file is JSON: then its first bytes are no length of a header that it could have."""
    with open(path, "rb") as file:
        begin = file.read(16)
    length = int.from_bytes(begin[:8], "little")
    return begin.lstrip().startswith(b"{") and length > path.stat().st_size


def _read_index(path):
    """Returns {name of an array: file name} of an index."""
    try:
        with disk_errors(path):
            if path.stat().st_size > INDEX_LIMIT:
                raise ValueError("it is too large for an index")
            index = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        for file in index.values():
            if Path(file).name != file:
                raise ValueError(f"{file!r} is not the name of a file beside it")
    except DAMAGE as error:
        raise UserError(
            f"{path}: this is no index of safetensors files ({reason(error)}); expected JSON with "
            '"weight_map": {name of an array: name of a file beside it}'
        ) from error
    return index


def _arrays(path):
    if not path.is_file():
        raise UserError(f"{path}: there is no such file, but an index beside it names it")
    try:
        with disk_errors(path), open(path, "rb") as file:
            entries, size = read_entries(file)
            entries.pop("__metadata__", None)
            for name, one in entries.items():
                _check(name, one)
            end = 0
            for name, one in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
                begin, after = one["data_offsets"]
                if begin != end or after > size:
                    raise ValueError(f"{name!r} is at bytes {begin} to {after}, not from {end} on, "
                                     f"of {size}")  # fmt: skip
                end = after
            if end != size:
                raise ValueError(f"it has {size - end} bytes that belong to no array")
            data = np.memmap(file, mode="r", offset=file.tell()) if size else np.zeros(0, np.uint8)
            return {name: _array(data, one) for name, one in entries.items()}
    except DAMAGE as error:
        raise UserError(
            f"{path} is cut, damaged or no safetensors file ({reason(error)}). Download it again"
        ) from error


def _check(name: str, entry: dict) -> None:
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{name!r} has the dtype {entry['dtype']}; known are {', '.join(DTYPES)}")
    dtype, shape = np.dtype(DTYPES[entry["dtype"]]), entry["shape"]
    begin, end = entry["data_offsets"]
    if len(shape) > 32 or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name!r} has {end - begin} bytes, not those of {dtype} {tuple(shape)}")


def _array(data: np.ndarray, entry: dict) -> np.ndarray:
    begin, end = entry["data_offsets"]
    return data[begin:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"]).view(np.ndarray)
