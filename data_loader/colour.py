"""From what an image file stores to the colours that a viewer shows."""

import functools
import io
import sys
from collections.abc import Sequence
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from utils import UserError

DEEP_GREY = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # modes of more than 8 bits
GREY = ("1", "L", "LA", "La")
DISPLAY_GAMMA, GAMMA_TOLERANCE = 2.2, 0.05  # of the PNG specification, and of libpng
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # of TIFF
OTHER_BYTE = {
    "16B": "16L",
    "16L": "16B",
    "16N": "16B" if sys.byteorder == "little" else "16L",
}  # raw modes; Pillow reads 8 of 16 bits
STEPS = {"L;2": 85, "L;4": 17}  # by which Pillow scales grey values, but not the transparent one
LATTICE = 17  # values of each channel on which a profile is tried


def to_8_bits(image: Image.Image, value_range: Sequence[float] | None) -> Image.Image:
    """Returns an opened image in 8 bits per channel, at the gamma of displays.

    Args:
        image: an image file, not yet decoded.
        value_range: (black, white) of images of more than 8 bits, see `images.render`.

    Raises:
        UserError: the values cannot be scaled.
    """
    stored, exponent = _stored(image), _gamma_exponent(image)
    image.load()
    if image.mode in DEEP_GREY:
        return _grey_to_8_bits(image, stored, value_range, exponent)
    if ";16" in stored.raw_mode and (value_range or exponent != 1 or "transparency" in image.info):
        return _colour_to_8_bits(image, stored, value_range or (0, 65535), exponent)
    if stored.raw_mode in STEPS and "transparency" in image.info:
        image.info["transparency"] *= STEPS[stored.raw_mode]
    if exponent == 1:
        return image
    image = image.convert("RGBA") if image.has_transparency_data else _without_palette(image)
    curve = _scale(np.arange(256), 0, 255, exponent).tolist()
    bands = len(image.getbands())
    alpha = list(range(256)) if image.mode in ("RGBA", "LA") else curve
    return image.point([*curve * (bands - 1), *alpha])


def to_srgb_over_white(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Returns an image of 8 bits as "L" or "RGB": its profile applied, transparency over white."""
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in GREY else "RGBA")
        alpha = image.getchannel("A")
    image = _to_srgb(_without_palette(image), profile)
    if alpha is None:
        return image
    white = Image.new(image.mode, image.size, "white")
    white.paste(image, mask=alpha)
    return white


def _without_palette(image):
    """The image as "L", "RGB", "CMYK" or "LAB"."""
    wanted = "L" if image.mode in GREY else image.mode if image.mode in ("CMYK", "LAB") else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _to_srgb(image, profile):
    """An image of `_without_palette` as "L" or "RGB", by its colour profile if it has one."""
    transform = _transform(profile, image.mode) if profile or image.mode == "LAB" else None
    if transform is not None:
        return transform.apply(image)
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


@functools.lru_cache(maxsize=64)
def _transform(profile, mode):
    """The transform from a profile to sRGB; None if it changes nothing, or does not fit the image.

    Viewers ignore a profile that is damaged or of another kind of image.
    """
    try:
        source = ImageCms.createProfile("LAB")
        if mode != "LAB":
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode not in ("L", "RGB"):
        return transform
    steps = np.linspace(0, 255, LATTICE).astype(np.uint8)
    before = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, LATTICE, 3)
    if mode == "L":
        before = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    given = Image.fromarray(before[..., 0] if mode == "L" else before)
    after = np.asarray(transform.apply(given))
    return None if np.abs(after.astype(int) - before).max() <= 1 else transform


def _gamma_exponent(image):
    """The power by which the values of a PNG, 0 to 1, are brought to the gamma of displays."""
    if "gamma" not in image.info or "icc_profile" in image.info or "srgb" in image.info:
        return 1
    gamma = image.info["gamma"] * DISPLAY_GAMMA
    return 1 if gamma <= 0 or abs(gamma - 1) <= GAMMA_TOLERANCE else 1 / gamma


class _Stored(NamedTuple):
    """How a file stores its values, which Pillow forgets when they are decoded."""

    raw_mode: str  # Pillow's name for it
    tiles: list  # Pillow's description of where the values are
    stream: IO[bytes]
    maximum: int | None  # of a grey image, as far as the file says so


def _stored(image):
    tiles = list(image.tile)
    args = tiles[0].args if tiles else None
    raw_mode = args[0] if isinstance(args, tuple) and args else args
    maximum = None
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, 16)
        maximum = 2 ** min(16, bits[0] if isinstance(bits, tuple) else bits) - 1
    elif image.format == "PPM" and image.mode == "I":
        maximum = tiles[0].args[-1] if tiles[0].codec_name.startswith("ppm") else 65535
    return _Stored(raw_mode if isinstance(raw_mode, str) else "", tiles, image.fp, maximum)


def _grey_to_8_bits(image, stored, value_range, exponent):
    """A grey image of 16 or 32 bits, or of floats, as "L"; as "LA" if one value is transparent."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if value_range is not None and image.format != "JPEG2000":  # which says its depth itself
        black, white = value_range
        if image.format == "PPM" and image.mode == "I":  # Pillow has scaled it to 16 bits
            black, white = (65535 * one / stored.maximum for one in value_range)
    elif image.mode.startswith("I;16"):
        black, white = 0, stored.maximum or 65535
    elif stored.maximum:
        black, white = 0, 65535
    else:
        raise UserError(
            f"its values are stored in 32 bits, here from {values.min():g} to {values.max():g}, "
            "and nothing says which are black and white; expected value_range=[black, white]"
        )
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        black, white = white, black
    grey = Image.fromarray(_scale(values, black, white, exponent))
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _colour_to_8_bits(image, stored, value_range, exponent):
    """A colour image of 16 bits per channel, scaled from both of its bytes."""
    depth = stored.raw_mode.partition(";")[2]
    if image.format not in ("PNG", "TIFF") or depth not in OTHER_BYTE or stored.raw_mode[0] == "L":
        raise UserError(f"{image.format} of 16 bits, of which Pillow reads the upper 8 alone")
    upper = np.asarray(image).astype(np.uint16)
    with Image.open(stored.stream, formats=[image.format]) as other:
        other.tile = [one._replace(args=_other_byte(one.args, depth)) for one in stored.tiles]
        values = upper << 8 | np.asarray(other)
    pixels = _scale(values, value_range[0], value_range[1], exponent)
    if image.mode == "RGBA":
        pixels[..., 3] = upper[..., 3]
    scaled = Image.fromarray(pixels, image.mode)
    transparent = image.info.get("transparency")
    if transparent is not None and scaled.mode == "RGB":
        opaque = (values != np.asarray(transparent)).any(-1)
        scaled.putalpha(Image.fromarray(np.where(opaque, 255, 0).astype(np.uint8)))
    return scaled


def _other_byte(args, depth):
    if isinstance(args, str):
        return args.replace(depth, OTHER_BYTE[depth])
    return (args[0].replace(depth, OTHER_BYTE[depth]), *args[1:])


def _scale(values, black, white, exponent):
    """Values as uint8, 0 for black and below, 255 for white and above."""
    if (black, white, exponent) == (0, 65535, 1) and values.dtype.kind in "ui":
        return (values >> 8).astype(np.uint8)  # as Pillow does for colour
    with np.errstate(invalid="ignore", over="ignore"):
        share = np.clip((values.astype(np.float32) - black) / (white - black), 0, 1)
    if not np.isfinite(share).all():
        raise UserError("has values that are not finite; expected numbers")
    return np.round(255 * share**exponent).astype(np.uint8)
