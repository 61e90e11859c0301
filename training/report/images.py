"""Turns pixels into images embedded in a page, alone or in rows."""

import base64
import io

import jax
import numpy as np
from PIL import Image, ImageDraw

from data_loader.augment.moving import BOXES

CRISP_PIXELS = 64  # images up to this side are shown with every pixel as a square
PHOTO_PIXELS = 192  # larger images are scaled down to this side
ROW_PIXELS = 64  # and to this one where several are in a row
COVER = 0.5  # how much of a picture a mask hides
COLOURS = (  # of masks and boxes, distinct for the colour-blind (Okabe and Ito)
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167),
)  # fmt: skip
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


def annotated(pixels, targets):
    """Returns `image_of` pixels, with the mask and the boxes over it that targets may hold.

    Args:
        pixels: of one picture.
        targets: of its example: an array, or a dict whose names say what it holds, as for
            data_loader/augment/moving.py.
    """
    image = image_of(pixels)
    if image is None:
        return None
    for path, leaf in jax.tree_util.tree_leaves_with_path(targets):
        leaf, name = np.asarray(leaf), getattr(path[-1], "key", "") if path else ""
        if name in BOXES and leaf.shape[-1:] == (4,):
            image = with_boxes(image, leaf.reshape(-1, 4))
        elif leaf.shape[-2:] == image.size[::-1] and 0 not in leaf.shape:
            image = with_mask(image, leaf.reshape(-1, *leaf.shape[-2:]))
    return image


def with_mask(image, mask):
    """Returns a PIL image with a mask over it: a colour for each class but 0, which is clear.

    Args:
        image: of (width, height).
        mask: (height, width) classes; or (maps, height, width), one for each class.
    """
    mask = np.asarray(mask)
    if mask.ndim == 3:
        several = mask.shape[0] > 1
        mask = (mask > 0.5).argmax(0) + (mask > 0.5).any(0) if several else mask[0]
    classes = np.round(mask).astype(int)
    colours = np.array(COLOURS, np.float32)[(classes - 1) % len(COLOURS)]
    share = np.where(classes > 0, COVER, 0)[..., None]
    pixels = np.asarray(image.convert("RGB"))
    return Image.fromarray(np.round((1 - share) * pixels + share * colours).astype(np.uint8))


def with_boxes(image, boxes):
    """Returns a PIL image with the outlines of boxes, (boxes, 4) x0, y0, x1, y1 in pixels."""
    image = image.convert("RGB")
    for number, (x0, y0, x1, y1) in enumerate(np.asarray(boxes, float).tolist()):
        if x1 > x0 and y1 > y0:
            colour = COLOURS[number % len(COLOURS)]
            last = (max(x0, x1 - 1), max(y0, y1 - 1))  # Pillow's lines lie within both corners
            ImageDraw.Draw(image).rectangle((x0, y0, *last), outline=colour)
    return image


def channels_first(shape):
    """Whether an image of three axes has its channels before its height and width."""
    return shape[0] <= 4


def data_uri(pixels):
    """Returns pixels as a data URI, or None if they are not an image; see `image_of`."""
    image = image_of(pixels)
    return image and data_uri_of(image)


def data_uri_of(image):
    """Returns a PIL image as a data URI, a large one smaller."""
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
