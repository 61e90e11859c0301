"""Pixels into pictures that stand inside a page, alone or in rows."""

import base64
import io

import numpy as np
from PIL import Image

CRISP_PIXELS = 64  # pictures up to this side keep every pixel as a square
PHOTO_PIXELS = 192  # larger pictures are scaled down to this side
ROW_PIXELS = 64  # and to this one where several stand in a row
GAP = 0.06  # between the pictures of a row, as a share of their side
SAMPLES, CLASSES = 100, 30  # shown at most


def image_of(pixels):
    """Returns a PIL image, or None if it is no picture.

    Args:
        pixels: uint8 (height, width), (channels, height, width) or (height, width, channels), with
            at most 4 channels; of more than 2 the first three are red, green and blue, else the
            first is shown in grey.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        return None
    if pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1) if channels_first(pixels.shape) else pixels
        pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(pixels))


def channels_first(shape):
    """Tells whether a picture of three axes has its channels before its height and width."""
    return shape[0] <= 4


def picture(pixels):
    """Returns pixels as `image_of` takes them as a data URI, or None if they are no picture."""
    image = image_of(pixels)
    if image is None:
        return None
    crisp = is_crisp(image)
    image.thumbnail((PHOTO_PIXELS, PHOTO_PIXELS))
    return _encoded(image, crisp)


def row(images, columns=None):
    """Returns images side by side as one data URI, transparent between them.

    Args:
        images: PIL images.
        columns: images in a row, if there is to be more than one row.
    """
    crisp = all(map(is_crisp, images))
    images = [image.copy() for image in images]
    for image in images:
        image.thumbnail((ROW_PIXELS, ROW_PIXELS))
    columns = min(columns or len(images), len(images))
    width, height = (max(image.size[axis] for image in images) for axis in (0, 1))
    gap = max(1, round(GAP * max(width, height)))
    rows = -(-len(images) // columns)
    size = (columns * (width + gap) - gap, rows * (height + gap) - gap)
    sheet = Image.new("LA" if all(image.mode == "L" for image in images) else "RGBA", size)
    for place, image in enumerate(images):
        at = (place % columns * (width + gap), place // columns * (height + gap))
        sheet.paste(image.convert(sheet.mode), at)
    return _encoded(sheet, crisp)


def is_crisp(image):
    """Whether every pixel is to be seen as a square."""
    return max(image.size) <= CRISP_PIXELS


def samples(look, targets, classes):
    """Returns the first examples of each class, {"name", "count", "shown", "picture"} each.

    Args:
        look: function of an example's index that returns its pixels, or None.
        targets: (examples,) integers.
        classes: a name for each class; the first of many are shown.
    """
    shown, each = [], min(10, max(3, SAMPLES // max(1, len(classes))))
    for label, name in enumerate(classes[:CLASSES] if look else ()):
        places = np.flatnonzero(targets == label)
        images = [image_of(look(index)) for index in places[:each].tolist()]
        if None in images:
            return []
        if images:
            counts = {"count": len(places), "shown": len(images)}
            shown.append({"name": name, **counts, "picture": row(images)})
    return shown


def _encoded(image, crisp):
    """A data URI: exactly, as PNG, or in fewer bytes, as WebP."""
    file, kind = io.BytesIO(), "png" if crisp else "webp"
    image.save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
