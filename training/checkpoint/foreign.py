"""Weights that another program wrote, as safetensors: one file, or several with an index.

A file with "weight_map" in its JSON, such as model.safetensors.index.json, names the files of a
model that is split. Floating-point numbers of any size become float32. A pickle is never read, as
that can run code.
"""

import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from training.checkpoint.naming import listed
from training.checkpoint.single_file import DAMAGE, DTYPES, read_entries, reason
from training.common.files import disk_errors
from utils import UserError

PICKLES = (b"PK\x03\x04", b"\x80")  # how files of torch.save begin
INDEX_LIMIT = 64 * 2**20  # bytes
SAVE = (
    'python -c "import torch, safetensors.torch as s; '
    "s.save_file(torch.load('{0}', weights_only=True), '{1}')\""
)


def is_foreign(path: Path) -> bool:
    """Whether this is a file that another program wrote.

    Raises:
        UserError: it is a pickle.
    """
    if not path.is_file():
        return False
    with disk_errors(path), open(path, "rb") as file:
        begin = file.read(16)
        if begin.startswith(PICKLES) and begin[8:9] != b"{":
            command = SAVE.format(path.name, path.with_suffix(".safetensors").name)
            raise UserError(
                f"{path}: this looks like a pickle (a file of torch.save), and reading one can run "
                "code, so it is not read; expected a safetensors file. Where PyTorch is installed "
                f"and the file holds a state_dict: {command}"
            )
        if begin.lstrip().startswith(b"{"):
            return True
        file.seek(0)
        try:
            entries, _ = read_entries(file)
        except DAMAGE:
            return path.suffix == ".safetensors"
        return "checksums" not in entries.get("__metadata__", {})


def read_foreign(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays, {name as in the file: array}.

    Raises:
        UserError: a file is missing, cut, no such file, or has a dtype that NumPy has not.
    """
    with open(path, "rb") as file:
        is_index = file.read(16).lstrip().startswith(b"{")
    if not is_index:
        return _arrays(path)
    index = _read_index(path)
    arrays, missing = {}, []
    for name in dict.fromkeys(index.values()):
        arrays |= _arrays(path.parent / name)
    if missing := [name for name in index if name not in arrays]:
        raise UserError(f"{path}: the files it names do not have {listed(missing)}")
    return {name: arrays[name] for name in index}


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
            start = file.tell()
            return {name: _array(file, start, size, name, one) for name, one in entries.items()}
    except DAMAGE as error:
        raise UserError(
            f"{path} is cut, damaged or no safetensors file ({reason(error)}). Download it again"
        ) from error


def _array(file: Any, start: int, size: int, name: str, entry: dict) -> np.ndarray:
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"{name!r} has the dtype {entry['dtype']}; known are {', '.join(DTYPES)}")
    dtype, shape = np.dtype(DTYPES[entry["dtype"]]), entry["shape"]
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= size:
        raise ValueError(f"{name!r} ends at byte {end} of {size}")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name!r} has {end - begin} bytes, not those of {dtype} {tuple(shape)}")
    array = np.empty(shape, dtype)
    file.seek(start + begin)
    file.readinto(array.reshape(-1).view(np.uint8))
    floating = dtype.kind == "f" or dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn,
                                              ml_dtypes.float8_e5m2)  # fmt: skip
    return array.astype(np.float32) if floating else array
