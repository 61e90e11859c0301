"""Finds image files in folders, and reads them as arrays."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from utils import UserError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")


def read_image(path: str | Path, size: tuple[int, int], mode: str) -> np.ndarray:
    """Reads a PNG or JPEG file.

    Args:
        path: path of the file.
        size: (height, width) in pixels to resize the image to.
        mode: "L" for grey, "RGB" for colour.

    Returns:
        (channels, height, width) uint8

    Raises:
        UserError: the file cannot be read as an image.
    """
    width_height = size[::-1]
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            image.draft(mode, width_height)  # decodes a large JPEG at a half, a quarter ...
            if image.mode == "I;16":  # Pillow's convert clips 16 bits at 255
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = image.convert(mode).resize(width_height, Image.Resampling.BILINEAR)
    except Exception as error:  # the decoders raise OSError, SyntaxError, ValueError and more
        raise UserError(
            f"{path}: cannot be read as a picture ({error}); expected a complete PNG or JPEG file. "
            "Replace or delete it."
        ) from error
    pixels = np.asarray(image)
    return pixels[None] if mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def find_images(root: Path, classes: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Finds images in a folder per class.

    Args:
        root: folder that contains a folder per class.
        classes: names of the classes in the order of their labels; None for all folders, sorted.

    Returns:
        {class: sorted paths of its images}

    Raises:
        UserError: there is no folder, one is empty, or one is not in `classes`.
    """
    found = _folders(root)
    unknown = sorted(set(found) - set(classes or found))
    if unknown or not found:
        got = f"the folders {unknown}, not in `classes`" if unknown else "no folder"
        raise UserError(
            f"{root}: {got}; expected a folder of pictures per class, {root}/<class>/*.png. "
            "Fix `root` or `classes`."
        )
    images = {name: _images(root / name) if name in found else [] for name in classes or found}
    empty = [name for name in found if not images[name]]
    if empty:
        raise UserError(
            f"{root / empty[0]}: no picture; expected files ending in "
            f"{', '.join(IMAGE_ENDINGS)}. Fill or delete the folder."
        )
    return images


def _folders(root):
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder; expected one that contains a folder of pictures per class. "
            "Fix `root`."
        )
    return sorted(
        path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _images(folder):
    return sorted(
        entry.path for entry in os.scandir(folder) if entry.name.lower().endswith(IMAGE_ENDINGS)
    )
