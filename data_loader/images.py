"""Reads image files as a viewer shows them: training, prediction and the demo by one function.

What a file is follows from its content; of several frames the first is read. Honoured are: the
orientation (EXIF, XMP), the embedded colour profile (converted to sRGB), the gamma of a PNG,
palettes, CMYK, transparency (over white), and the number of bits. A profile or EXIF data that are
damaged are ignored, as by viewers.
"""

import contextlib
import functools
import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from data_loader.colour import to_8_bits, to_srgb_over_white
from data_loader.file_kinds import HEAD, describe
from utils import UserError, printable

PLUGINS = {  # of Pillow, by the format: package, module and the function that registers it
    "HEIC image": ("pillow-heif", "pillow_heif", "register_heif_opener"),
    "JPEG XL image": ("pillow-jxl-plugin", "pillow_jxl", None),
}
NOT_IMAGES = ("BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF")  # which Pillow names as well
RAW_TAGS = (50706, 33421)  # of TIFF: DNGVersion, CFARepeatPatternDim
REDUCED = 1  # a bit of TIFF's NewSubfileType: a preview of an image elsewhere in the file
GAP = 2  # a JPEG is decoded at a half, a quarter ... if that is still so much larger than wanted
LARGE, BLOCK = 2**25, 8  # from so many pixels on, blocks of so many squared are averaged first
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by the EXIF orientation

File = str | Path | IO[bytes]  # a path, or a stream


def read_image(
    file: File,
    size: tuple[int, int],
    mode: str,
    value_range: Sequence[float] | None = None,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Reads an image file as a viewer shows it.

    Args:
        file: path of the file, or a binary stream.
        size: (height, width) in pixels to resize the image to.
        mode: "L" for grey, "RGB" for colour.
        value_range: (black, white), see `render`.
        max_pixels: refuse a larger image; None reads any.

    Returns:
        (channels, height, width) uint8

    Raises:
        UserError: the file cannot be read as an image; the message says what it is.
    """
    with open_image(file, max_pixels) as image:
        pixels = np.asarray(render(image, mode, size, value_range))
    return pixels[None] if mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))


@contextlib.contextmanager
def open_image(file: File, max_pixels: int | None = None) -> Iterator[ImageFile.ImageFile]:
    """Opens an image file by its content: its `format`, `mode` and `size`, but no pixels yet.

    What goes wrong within the block, while pixels are decoded, is a UserError as well.

    Args:
        file: path of the file, or a binary stream.
        max_pixels: refuse a larger image; None opens any.

    Raises:
        UserError: it is no image, or a damaged one.
    """
    head, name = b"", printable(file)
    Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow's own limit is meant for files of strangers
    try:
        with contextlib.ExitStack() as stack:
            stream: Any = file
            if isinstance(file, str | Path):
                stream = stack.enter_context(open(file, "rb"))
            head = stream.read(HEAD)
            formats = possible_formats(head, str(file))
            if not formats:
                raise UserError(explain(head))
            image = stack.enter_context(Image.open(stream, formats=formats))
            if max_pixels and image.width * image.height > max_pixels:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            if image.format == "TIFF" and _is_raw(image):
                raise UserError("camera raw file, of which Pillow reads no more than a preview")
            yield image
    except UserError as error:
        raise UserError(f"{name}: cannot be read as a picture: {error}") from error.__cause__
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = f"expected at most {max_pixels:,} pixels"
        raise UserError(f"{name}: too large ({error}); {limit}") from error
    except Exception as error:  # the decoders raise OSError, SyntaxError, ValueError and more
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{name}: cannot be read: {error.strerror}") from error
        detail = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        reason = f"{describe(head)}, cut off or damaged{detail}"
        raise UserError(f"{name}: cannot be read as a picture: {reason}") from error


def possible_formats(head: bytes, name: str) -> list[str]:
    """Returns those of Pillow's formats that a file's beginning allows; none if it is no image.

    Args:
        head: the first bytes of the file.
        name: of the file; its ending decides on the few formats that have no mark, like TGA.
    """
    for mark, kind in ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG")):
        if head.startswith(mark):  # as most are: the other formats need not be asked
            return [kind]
    _load_plugin(describe(head))
    Image.init()
    found, ending = [], os.path.splitext(name)[1].lower()
    for kind in [one for one in Image.ID if one not in NOT_IMAGES]:
        accept = Image.OPEN[kind][1]
        with contextlib.suppress(Exception):  # some do not expect a file of a few bytes
            fits = accept(head[:16]) if accept else Image.EXTENSION.get(ending) == kind
            found += [kind] if fits and not isinstance(fits, str) else []  # a text says what lacks
    return found


def explain(head: bytes) -> str:
    """Returns why a file without `possible_formats` is not read, from its first bytes."""
    kind = describe(head)
    if kind in PLUGINS:
        return f"{kind}, which Pillow reads with a plugin: pip install {PLUGINS[kind][0]}"
    return f"{kind}, which Pillow does not read; convert it" if kind.endswith("image") else kind


def render(
    image: Image.Image,
    mode: str,
    size: tuple[int, int] | None = None,
    value_range: Sequence[float] | None = None,
) -> Image.Image:
    """Returns an opened image as a viewer shows it.

    Args:
        image: from `open_image`.
        mode: "L" for grey, "RGB" for colour.
        size: (height, width) in pixels to resize it to; None keeps its own.
        value_range: (black, white), the values between which an image of more than 8 bits per
            channel is scaled, as the file stores them; None for all values of its bits. Integers
            of 32 bits and floats need it: nothing says what is black and white among them.

    Raises:
        UserError: it needs a `value_range`.
    """
    turned = image.format in ("JPEG", "MPO") and _orientation(image) >= 5
    target = size and (size if turned else size[::-1])  # (width, height) as in the file
    if target:
        image.draft(image.mode, (GAP * target[0], GAP * target[1]))
    profile = image.info.get("icc_profile")
    shown = to_8_bits(image, value_range)
    turn = TURNS.get(_orientation(image))  # not that of a TIFF, which Pillow turns by itself
    if target and shown.width * shown.height > LARGE and shown.mode not in ("1", "P", "PA"):
        most = [side // (GAP * goal) for side, goal in zip(shown.size, target, strict=True)]
        shown = shown.reduce(max(1, min(*most, BLOCK)))
    shown = to_srgb_over_white(shown, profile)
    shown = shown if turn is None else shown.transpose(turn)
    shown = shown if shown.mode == mode else shown.convert(mode)
    return shown.resize(size[::-1], Image.Resampling.BILINEAR) if size else shown


def shown_size(image: Image.Image) -> tuple[int, int]:
    """Returns the (height, width) at which a viewer shows an opened image."""
    return image.size if _orientation(image) >= 5 else image.size[::-1]


@functools.cache
def _load_plugin(kind):
    """Lets Pillow read a format by its plugin, if there is one and it is installed."""
    _, module, register = PLUGINS.get(kind, (None, None, None))
    with contextlib.suppress(ImportError):
        plugin = importlib.import_module(module) if module else None
        if plugin and register:
            getattr(plugin, register)()


def _orientation(image):
    """The EXIF orientation, 1 to 8; 1 if there is none, or none that can be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the parser raises anything if EXIF data are damaged
        return 1


def _is_raw(image):
    """Whether a TIFF is a camera's raw file, whose first image is a small preview."""
    kind = image.tag_v2.get(ExifTags.Base.NewSubfileType, 0)
    return bool(kind & REDUCED) or any(tag in image.tag_v2 for tag in RAW_TAGS)
