"""From what an image file stores to the colours that a viewer shows."""

import functools
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageCms

from utils import UserError

DEEP_GREY = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # modes of more than 8 bits
GREY = ("1", "L", "LA", "La")
DISPLAY_GAMMA, GAMMA_TOLERANCE = 2.2, 0.05  # of the PNG specification, and of libpng
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # of TIFF
LATTICE = 17  # values of each channel on which a profile is tried


def to_8_bits(image: Image.Image, value_range: Sequence[float] | None) -> Image.Image:
    """Returns an opened image in 8 bits per channel, at the gamma of displays.

    Args:
        image: an image file, not yet decoded.
        value_range: (black, white) of images of more than 8 bits, see `images.render`.

    Raises:
        UserError: the values cannot be scaled.
    """
    exponent = _gamma_exponent(image)
    if image.mode in DEEP_GREY:
        return _grey_to_8_bits(image, value_range, exponent)
    if _is_deep(image) and (value_range or exponent != 1 or "transparency" in image.info):
        return _colour_to_8_bits(image, value_range or (0, 65535), exponent)
    image.load()
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


def _grey_to_8_bits(image, value_range, exponent):
    """A grey image of 16 or 32 bits, or of floats, as "L"; as "LA" if one value is transparent."""
    maximum = _stated_maximum(image)
    tags, transparent = getattr(image, "tag_v2", {}), image.info.get("transparency")
    values = np.asarray(image)
    if value_range is not None and image.format != "JPEG2000":  # which says its depth itself
        black, white = value_range
        if image.format == "PPM" and image.mode == "I":  # Pillow has scaled it to 16 bits
            black, white = (65535 * one / maximum for one in value_range)
    elif image.mode != "F" and maximum is not None:
        black, white = 0, 65535 if image.format == "PPM" else maximum
    else:
        raise UserError(
            f"has values of 32 bits, here from {values.min():g} to {values.max():g}, and does not "
            "say which of them are black and white; expected value_range=[black, white]"
        )
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        black, white = white, black
    grey = Image.fromarray(_scale(values, black, white, exponent))
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _stated_maximum(image):
    """The largest value that a grey image file says it can hold; None if it does not say."""
    if image.format == "PPM" and image.mode == "I":
        tile = image.tile[0]
        return tile.args[-1] if tile.codec_name.startswith("ppm") else 65535
    if not image.mode.startswith("I;16"):
        return None
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))
    return 2 ** min(16, bits[0] if isinstance(bits, tuple) else bits) - 1


LOW_BYTES = {"16B": "16L", "16L": "16B", "16N": "16B"}  # raw modes that give Pillow the other byte


def _is_deep(image):
    """Whether a colour image has 16 bits per channel, of which Pillow reads the upper 8."""
    return bool(image.tile) and ";16" in _raw_mode(image.tile[0])


def _raw_mode(tile):
    args = tile.args
    raw = args if isinstance(args, str) else args[0] if isinstance(args, tuple) and args else ""
    return raw if isinstance(raw, str) else ""


def _colour_to_8_bits(image, value_range, exponent):
    """A colour image of 16 bits per channel, scaled from both of its bytes."""
    stream, tiles, transparent = image.fp, image.tile, image.info.get("transparency")
    depth = _raw_mode(tiles[0]).partition(";")[2]
    if image.format not in ("PNG", "TIFF") or depth not in LOW_BYTES or image.mode == "LA":
        raise UserError(f"is a {image.format} of 16 bits; expected PNG or TIFF")
    upper = np.asarray(image).astype(np.uint16)
    with Image.open(stream, formats=[image.format]) as other:
        other.tile = [one._replace(args=_other_byte(one.args, depth)) for one in other.tile]
        values = upper << 8 | np.asarray(other)
    pixels = _scale(values, value_range[0], value_range[1], exponent)
    if image.mode == "RGBA":
        pixels[..., 3] = upper[..., 3]
    scaled = Image.fromarray(pixels, image.mode)
    if transparent is not None and scaled.mode == "RGB":
        opaque = (values != np.asarray(transparent)).any(-1)
        scaled.putalpha(Image.fromarray(np.where(opaque, 255, 0).astype(np.uint8)))
    return scaled


def _other_byte(args, depth):
    if isinstance(args, str):
        return args.replace(depth, LOW_BYTES[depth])
    return (args[0].replace(depth, LOW_BYTES[depth]), *args[1:])


def _scale(values, black, white, exponent):
    """Values as uint8, 0 for black and below, 255 for white and above."""
    if (black, white, exponent) == (0, 65535, 1) and values.dtype.kind == "u":
        return (values >> 8).astype(np.uint8)  # as Pillow does for colour
    with np.errstate(invalid="ignore", over="ignore"):
        share = np.clip((values.astype(np.float32) - black) / (white - black), 0, 1)
    if not np.isfinite(share).all():
        raise UserError("has values that are not finite; expected numbers")
    return np.round(255 * share**exponent).astype(np.uint8)
