"""Turns pixels into images embedded in a page, alone or in rows."""

import base64
import io

import numpy as np
from PIL import Image

CRISP_PIXELS = 64  # images up to this side are shown with every pixel as a square
PHOTO_PIXELS = 192  # larger images are scaled down to this side
ROW_PIXELS = 64  # and to this one where several are in a row
GAP = 0.06  # between the images of a row, as a share of their side


def image_of(pixels):
    """Returns a PIL image, or None if the pixels are not an image.

    Pixels are uint8 (height, width), (channels, height, width) or (height, width, channels), with
    at most 4 channels. Of more than 2 the first three are red, green and blue, else the first is
    shown in grey.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        return None
    if pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1) if channels_first(pixels.shape) else pixels
        pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(pixels))


def channels_first(shape):
    """Whether an image of three axes has its channels before its height and width."""
    return shape[0] <= 4


def data_uri(pixels):
    """Returns pixels as a data URI, or None if they are not an image; see `image_of`."""
    image = image_of(pixels)
    if image is None:
        return None
    crisp = is_crisp(image)
    image.thumbnail((PHOTO_PIXELS, PHOTO_PIXELS))
    return _encode(image, crisp)


def image_grid(images, columns=None):
    """Returns PIL images in rows of `columns`, or in one, as a data URI, transparent between."""
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
    for index, image in enumerate(images):
        corner = (index % columns * (width + gap), index // columns * (height + gap))
        sheet.paste(image.convert(sheet.mode), corner)
    return _encode(sheet, crisp)


def is_crisp(image):
    """Whether every pixel is shown as a square."""
    return max(image.size) <= CRISP_PIXELS


def _encode(image, crisp):
    """A data URI: exact, as PNG, or in fewer bytes, as WebP."""
    file, kind = io.BytesIO(), "png" if crisp else "webp"
    image.save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
