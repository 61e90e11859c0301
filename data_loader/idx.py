"""Finds, downloads and reads IDX files, the format of MNIST."""

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

SPLITS = {"train": ["train"], "test": ["t10k", "test"]}  # and their names in file names
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
READ_TIMEOUT = 10  # seconds to wait for the next byte from a mirror
DOWNLOAD_TIMEOUT = 300  # seconds for a whole file
LARGEST_DOWNLOAD = 2**24  # bytes; MNIST's training images are 9.9 million
CHUNK = 2**20  # bytes read at a time
DEFLATE_RATIO = 1032  # the largest that gzip reaches: https://zlib.net/zlib_tech.html
UNSIGNED_BYTE = 8  # IDX's code for the type of the data

logger = logging.getLogger(__name__)


def find_idx_pair(root: Path, split: str, download: str | None = None) -> list[Path]:
    """Finds the IDX files of a split's images and labels, and downloads them if that is allowed.

    Args:
        root: folder of the files.
        split: "train" or "test".
        download: None, or the name of a source in `MIRRORS`.

    Returns:
        path of the images, path of the labels

    Raises:
        UserError: files are missing, ambiguous, or could not be downloaded.
    """
    names = _idx_pair_names(root, split)
    if download and set(names) <= CHECKSUMS[download].keys():
        _download_missing(root, names, download)
    paths = [path for path in (_existing(root, name) for name in names) if path]
    if len(paths) < len(names):
        missing = " and ".join(name for name in names if not _existing(root, name))
        got = "has no" if root.is_dir() else "no such folder, so there is no"
        raise UserError(
            f"{root}: {got} {missing}; expected each of them, gzipped (.gz) or not. Put them "
            'there, point `root` elsewhere, or set `download` to "mnist" to download MNIST.'
        )
    return paths


def read_idx(path: str | Path, dimensions: int) -> np.ndarray:
    """Reads an IDX file of unsigned bytes, gzipped or not.

    The format (http://yann.lecun.com/exdb/mnist): the bytes 0, 0, 8 (unsigned bytes), number of
    dimensions; every dimension in four bytes, the most significant first; the data. Memory is
    allocated for the bytes in the file, not for those that its header claims.

    Args:
        path: path of the file.
        dimensions: number of dimensions expected.

    Returns:
        uint8 array with that many dimensions

    Raises:
        UserError: the file is not of that format, or it is damaged.
    """
    with _open_unzipped(path) as file:
        magic = bytes([0, 0, UNSIGNED_BYTE, dimensions])
        header = file.read(4 + 4 * dimensions)
        if header[:4] != magic or len(header) < 4 + 4 * dimensions:
            raise UserError(
                f"{path}: begins with the bytes {header[:4].hex() or '(none)'}; expected "
                f"{magic.hex()} and a whole header: an IDX file of unsigned bytes, {dimensions} "
                "dimension(s), gzipped or not. Download or write it again."
            )
        shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
        data = _read_exactly(file, math.prod(shape), os.path.getsize(path) * DEFLATE_RATIO)
        if data is None or not data.size:
            raise UserError(
                f"{path}: its header claims the shape {shape}, but not {math.prod(shape)} bytes "
                "follow; expected exactly as many, and at least one. "
                "It may be cut short: delete it and download or write it again."
            )
    return data.reshape(shape)


def _idx_pair_names(root, split):
    """Returns the names of a split's two files, without ".gz"; MNIST's if there are no images."""
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


def _existing(root, name):
    """Returns the path of a file, gzipped or not, or None."""
    return next((path for path in (root / name, root / f"{name}.gz") if path.is_file()), None)


def _download_missing(root, names, source):
    """Downloads the missing files, if the existing ones are from the same source."""
    missing = [name for name in names if not _existing(root, name)]
    for name in names:
        path = _existing(root, name)
        if missing and path and _checksum(path) != CHECKSUMS[source][name]:
            raise UserError(
                f"{path}: is not the file of {source}, so {missing[0]} is not downloaded to "
                "complete it; expected both from the same source. Add the other or delete this."
            )
    for name in missing:
        try:
            root.mkdir(parents=True, exist_ok=True)
            reasons = _download_file(root / f"{name}.gz", source, CHECKSUMS[source][name])
        except OSError as error:
            reasons = [str(error)]
        if reasons:
            raise UserError(
                f"{root}: {' and '.join(missing)} missing, and the download failed: "
                f"{'; '.join(reasons)}. Expected a network and free disk space; "
                f"or put the files (.gz) into {root}."
            )


def _download_file(path, source, checksum):
    """Downloads a gzipped file from the first mirror that works.

    Returns:
        empty list, or if no mirror works, the reason for each
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    reasons = []
    for mirror in MIRRORS[source]:
        logger.info("Downloading %s%s", mirror, path.name)
        try:
            _copy_url(mirror + path.name, unfinished)
            if (got := _checksum(unfinished)) != checksum:
                raise UserError(f"MD5 {got} of the content, expected {checksum}")
            os.replace(unfinished, path)
            return []
        except (OSError, http.client.HTTPException, UserError) as error:
            reasons.append(f"{mirror}{path.name}: {error}")
        finally:
            unfinished.unlink(missing_ok=True)
    return reasons


def _copy_url(url, path):
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT
    with urllib.request.urlopen(url, timeout=READ_TIMEOUT) as response, open(path, "wb") as file:
        while chunk := response.read1(CHUNK):
            file.write(chunk)
            if file.tell() > LARGEST_DOWNLOAD or time.monotonic() > deadline:
                raise OSError(f"more than {LARGEST_DOWNLOAD} bytes or {DOWNLOAD_TIMEOUT} s")


def _checksum(path):
    with _open_unzipped(path) as file:
        return hashlib.file_digest(file, "md5").hexdigest()


@contextlib.contextmanager
def _open_unzipped(path):
    """Opens a file, through gzip if its content is gzipped, whatever its name."""
    try:
        with open(path, "rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if gzipped else open(path, "rb") as file:
            yield file
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected an IDX file, gzipped or not. "
            "It may be cut short or damaged: delete it and download or write it again."
        ) from error


def _read_exactly(file, count, limit):
    """Reads the rest of a file, which must be `count` <= `limit` bytes; otherwise returns None."""
    if count > limit:
        return None
    data = np.empty(count, np.uint8)  # the system allocates its pages when they are written to
    filled = 0
    while chunk := file.read(min(CHUNK, count + 1 - filled)):
        if filled + len(chunk) > count:
            return None
        data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    return data if filled == count else None
