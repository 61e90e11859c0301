"""Finding, downloading and reading IDX files, the format of MNIST."""

import contextlib
import gzip
import hashlib
import http.client
import logging
import math
import os
import re
import time
import urllib.request
import zlib
from pathlib import Path

import numpy as np

from utils import UserError

SPLITS = {"train": ["train"], "test": ["t10k", "test"]}  # what names of IDX files call a split
MIRRORS = {
    "mnist": [
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ]
}
CHECKSUMS = {  # MD5 of the uncompressed content
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }
}
SILENCE = 10  # seconds without a byte after which a mirror is given up
PATIENCE = 300  # seconds for a whole file
LARGEST_DOWNLOAD = 2**24  # bytes; MNIST's training images are 9.9 million
CHUNK = 2**20  # bytes read at a time
DEFLATE_RATIO = 1032  # gzip cannot shrink further: https://zlib.net/zlib_tech.html
UNSIGNED_BYTE = 8  # IDX's code for the type of the data

logger = logging.getLogger(__name__)


def find_idx_pair(root: Path, split: str, download: str | None = None) -> list[Path]:
    """Finds the IDX files of a split's images and labels, and fetches them if that is allowed.

    Args:
        root: folder, a Path.
        split: "train" or "test".
        download: None or the name of a source in `MIRRORS`.

    Returns:
        path of the images, path of the labels

    Raises:
        UserError: there are none, or several; or they could not be fetched.
    """
    names = _idx_pair_names(root, split)
    if download and set(names) <= CHECKSUMS[download].keys():
        _complete(root, names, download)
    paths = [path for path in (_present(root, name) for name in names) if path]
    if len(paths) < len(names):
        missing = " and ".join(name for name in names if not _present(root, name))
        came = "has no" if root.is_dir() else "no such folder, so there is no"
        raise UserError(
            f"{root}: {came} {missing}; expected each of them, gzipped (.gz) or not. "
            'Put them there, point `root` elsewhere, or set `download` to "mnist" to fetch MNIST.'
        )
    return paths


def read_idx(path: str | Path, dimensions: int) -> np.ndarray:
    """Reads an IDX file of unsigned bytes, gzipped or not.

    The format: 0, 0, 8 (unsigned bytes), number of dimensions; every dimension in four bytes, the
    highest first; the data (http://yann.lecun.com/exdb/mnist). Memory is taken for what the file
    holds, not for what its header claims.

    Args:
        path: path of the file.
        dimensions: number of dimensions expected.

    Returns:
        uint8 array with that many dimensions

    Raises:
        UserError: the file is none of that kind, or it is damaged.
    """
    with _unpacked(path) as file:
        magic = bytes([0, 0, UNSIGNED_BYTE, dimensions])
        header = file.read(4 + 4 * dimensions)
        if header[:4] != magic or len(header) < 4 + 4 * dimensions:
            raise UserError(
                f"{path}: begins with the bytes {header[:4].hex() or '(none)'}; expected "
                f"{magic.hex()} and a whole header: an IDX file of unsigned bytes, {dimensions} "
                "dimension(s), gzipped or not. Fetch or write it again."
            )
        shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
        data = _read_exactly(file, math.prod(shape), os.path.getsize(path) * DEFLATE_RATIO)
        if data is None or not data.size:
            raise UserError(
                f"{path}: its header claims the shape {shape}, and other than {math.prod(shape)} "
                "bytes follow; expected as many, and more than none. "
                "It may be cut short: delete it and fetch or write it again."
            )
    return data.reshape(shape)


def _idx_pair_names(root, split):
    """The names of a split's two files, without ".gz"; MNIST's if there are no images at all."""
    pattern = re.compile(rf"(.*(?:{'|'.join(SPLITS[split])})-)images([-.]idx)3-ubyte(\.gz)?")
    files = [path.name for path in root.iterdir() if path.is_file()] if root.is_dir() else []
    found = {match.groups()[:2] for match in map(pattern.fullmatch, files) if match}
    if len(found) > 1:
        names = " and ".join(sorted(f"{start}images{idx}3-ubyte" for start, idx in found))
        raise UserError(
            f"{root}: {names} could all be the {split} images; expected one of them. "
            "Give every data set a folder of its own."
        )
    start, idx = found.pop() if found else (f"{SPLITS[split][0]}-", "-idx")
    return f"{start}images{idx}3-ubyte", f"{start}labels{idx}1-ubyte"


def _present(root, name):
    """The path of a file, gzipped or not, or None."""
    return next((path for path in (root / name, root / f"{name}.gz") if path.is_file()), None)


def _complete(root, names, source):
    """Fetches those of the files that are missing, beside files from the same source."""
    missing = [name for name in names if not _present(root, name)]
    for name in names:
        path = _present(root, name)
        if missing and path and _checksum(path) != CHECKSUMS[source][name]:
            raise UserError(
                f"{path}: is not the file of {source}, so {missing[0]} is not fetched from there "
                "to go with it; expected the two from one source. Add the other or delete this."
            )
    for name in missing:
        try:
            root.mkdir(parents=True, exist_ok=True)
            reasons = _download(root / f"{name}.gz", source, CHECKSUMS[source][name])
        except OSError as error:
            reasons = [str(error)]
        if reasons:
            raise UserError(
                f"{root}: {' and '.join(missing)} missing, and no download: {'; '.join(reasons)}. "
                f"Expected a network and room on the disk; or put the files (.gz) into {root}."
            )


def _download(path, source, checksum):
    """Fetches a gzipped file from the first mirror that has it whole; returns why none had."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    reasons = []
    for mirror in MIRRORS[source]:
        logger.info("Downloading %s%s", mirror, path.name)
        try:
            _fetch(mirror + path.name, unfinished)
            if (came := _checksum(unfinished)) != checksum:
                raise UserError(f"MD5 {came} of the content, expected {checksum}")
            os.replace(unfinished, path)
            return []
        except (OSError, http.client.HTTPException, UserError) as error:
            reasons.append(f"{mirror}{path.name}: {error}")
        finally:
            unfinished.unlink(missing_ok=True)
    return reasons


def _fetch(url, path):
    deadline = time.monotonic() + PATIENCE
    with urllib.request.urlopen(url, timeout=SILENCE) as response, open(path, "wb") as file:
        while chunk := response.read1(CHUNK):
            file.write(chunk)
            if file.tell() > LARGEST_DOWNLOAD or time.monotonic() > deadline:
                raise OSError(f"more than {LARGEST_DOWNLOAD} bytes or {PATIENCE} s")


def _checksum(path):
    with _unpacked(path) as file:
        return hashlib.file_digest(file, "md5").hexdigest()


@contextlib.contextmanager
def _unpacked(path):
    """Opens a file, through gzip if the content is gzipped, whatever its name is."""
    try:
        with open(path, "rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if gzipped else open(path, "rb") as file:
            yield file
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected an IDX file, gzipped or not. "
            "It may be cut short or damaged: delete it and fetch or write it again."
        ) from error


def _read_exactly(file, count, most):
    """Reads the `count` bytes that are left in a file; None if there are more, fewer or > most."""
    if count > most:
        return None
    data = np.empty(count, np.uint8)  # takes no memory until it is written to
    filled = 0
    while chunk := file.read(min(CHUNK, count + 1 - filled)):
        if filled + len(chunk) > count:
            return None
        data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    return data if filled == count else None
