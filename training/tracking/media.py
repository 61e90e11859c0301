"""Images, texts and histograms: checked for every tracker, and kept in the run folder."""

import logging
import re
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from training.common.files import disk_errors
from training.common.records import parse_record
from training.tracking.jsonl import LinesFile
from utils import UserError

MEDIA, IMAGES = "media.jsonl", "images"  # in the run folder
KEPT = 50  # images of a name that are kept, the last
LARGEST_SIDE = 4096  # pixels
LONGEST_TEXT = 20_000  # characters of a text that are kept in the run folder
LARGEST_FILE = 32 * 2**20  # bytes of media.jsonl
BINS = 30  # of a histogram in the run folder
LOG = logging.getLogger("main")


def as_image(array, name):
    """Returns an image as uint8 (height, width, channels).

    Args:
        array: (height, width), (height, width, channels) or (channels, height, width), of 1, 3 or 4
            channels: uint8, booleans, or floats from 0 to 1.
        name: what it is called, for messages.

    Raises:
        UserError: the array is not such an image.
    """
    image = np.asarray(array)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim == 3 and image.shape[2] not in (1, 3, 4) and image.shape[0] in (1, 3, 4):
        image = image.transpose(1, 2, 0)
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size:
        one = "; of a batch, log one by one: images[0]" if image.ndim == 4 else ""
        raise _no_image(name, array, f"got the shape {np.shape(array)}{one}")
    if max(image.shape[:2]) > LARGEST_SIDE:
        raise _no_image(name, array, f"got {image.shape[0]} x {image.shape[1]} pixels")
    if image.dtype == bool:
        return image.astype(np.uint8) * 255
    if image.dtype.kind in "fV":  # V: bfloat16
        image = image.astype(np.float32)
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
            raise _no_image(name, array, f"got floats from {image.min():.3g} to {image.max():.3g}")
        return np.rint(image * 255).astype(np.uint8)
    if image.dtype != np.uint8:
        raise _no_image(name, array, f"got {image.dtype}")
    return image


def as_text(text, name):
    """Returns a text, which must be one."""
    if not isinstance(text, str):
        raise UserError(f"text {name!r}: got {type(text).__name__}; expected a str")
    return text


def as_values(values, name):
    """Returns the finite ones of an array's numbers, (count,) float64."""
    array = np.asarray(values)
    if array.dtype.kind not in "biufV" or not array.size:
        raise UserError(f"histogram {name!r}: got {array.dtype} {array.shape}; expected numbers")
    numbers = array.astype(np.float64).ravel()
    return numbers[np.isfinite(numbers)]


def as_name(name, kind):
    """Returns the name of an image, a text or a histogram, which must be a text."""
    if isinstance(name, str) and name.strip() and len(name) <= 200 and name.isprintable():
        return name
    raise UserError(f"{kind}: its name is {name!r}; expected a text of at most 200 characters")


class Media:
    """The images, texts and histograms of a run folder: PNG files, and a line for each.

    A line has "step", "kind" and "name", and "file", "text", or "counts" and "edges". The file of
    lines is cut off to `size` bytes, and images that were made later are removed.
    """

    def __init__(self, folder, size=0):
        self._folder, self._lines, self._full = Path(folder), None, False
        self._images = {}  # {name: [file, ...]}, of those that are kept
        if size or (self._folder / MEDIA).exists():
            self._open(size)
            for line in read_media(self._folder):
                if line["kind"] == "image":
                    self._images.setdefault(line["name"], []).append(line["file"])
            known = {file for files in self._images.values() for file in files}
            for path in (self._folder / IMAGES).glob("*/*.png"):
                if str(path.relative_to(self._folder)) not in known:
                    path.unlink(missing_ok=True)

    def image(self, step, name, array):
        """Writes images/<name>/<step>.png; the oldest of many is removed."""
        file = f"{IMAGES}/{file_name(name)}/{step:09d}.png"
        path = self._folder / file
        with disk_errors(path):
            (self._folder / IMAGES).mkdir(exist_ok=True)  # without the run folder, an error
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array).save(path)
        self._append(step, "image", name, file=file)
        files = self._images.setdefault(name, [])
        if file not in files:
            files.append(file)
        while len(files) > KEPT:
            (self._folder / files.pop(0)).unlink(missing_ok=True)

    def text(self, step, name, text):
        """Keeps a text, the beginning of a long one."""
        self._append(step, "text", name, text=text[:LONGEST_TEXT])

    def histogram(self, step, name, values):
        """Keeps the counts between equally distant edges."""
        counts, edges = np.histogram(values, BINS)
        self._append(step, "histogram", name, counts=counts.tolist(), edges=edges.tolist())

    def size(self):
        """Returns the bytes of the lines, 0 where there is no file of them."""
        return self._lines.size() if self._lines else 0

    def close(self):
        """Closes the file."""
        if self._lines:
            self._lines.close()

    def _open(self, size):
        self._lines = LinesFile(self._folder / MEDIA, size)

    def _append(self, step, kind, name, **content):
        if self._lines is None:
            self._open(0)
        if self._lines.size() < LARGEST_FILE:
            self._lines.append({"step": step, "kind": kind, "name": name} | content)
        elif not self._full:
            self._full = True
            LOG.warning(
                "%s has %d MB; later texts and histograms are given to the other trackers alone",
                self._folder / MEDIA, LARGEST_FILE // 2**20,
            )  # fmt: skip


def read_media(folder):
    """Returns the lines of a run folder's media.jsonl whose images are there, see `Media`."""
    path, found = Path(folder) / MEDIA, []
    if not path.is_file():
        return found
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        line = parse_record(text)
        if type(line.get("step")) is not int or not isinstance(line.get("name"), str):
            continue
        kind = line.get("kind")
        if (
            kind == "histogram"
            or (kind == "text" and isinstance(line.get("text"), str))
            or (kind == "image" and _is_image_file(Path(folder), line.get("file")))
        ):
            found.append(line)
    return found


def _is_image_file(folder, file):
    """Whether this is an image that a run wrote: no path leads out of the folder."""
    inside = isinstance(file, str) and re.fullmatch(rf"{IMAGES}/\w[\w.-]*/\d+\.png", file)
    return bool(inside) and (folder / file).is_file()


def file_name(name):
    """A folder's name that no other name of an image has."""
    plain = re.sub(r"[^\w-]+", "_", name, flags=re.ASCII).strip("_")[:60]
    return plain if plain == name else f"{plain or 'image'}-{zlib.crc32(name.encode()):08x}"


def _no_image(name, array, got):
    return UserError(
        f"image {name!r}: {got}; expected (height, width), (height, width, channels) or (channels, "
        f"height, width) of 1, 3 or 4 channels, each side at most {LARGEST_SIDE} pixels: uint8, "
        "booleans, or floats from 0 to 1, such as (x - x.min()) / (x.max() - x.min())"
    )
