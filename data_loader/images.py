"""Finding image files and reading them as arrays."""

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
        size: (height, width) in pixels to bring the picture to.
        mode: "L" for grey, "RGB" for colour.

    Returns:
        (channels, height, width) uint8

    Raises:
        UserError: the file cannot be read as a picture.
    """
    width_height = size[::-1]
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            picture.draft(mode, width_height)  # decodes a large JPEG at a half, a quarter ...
            if picture.mode == "I;16":  # Pillow's convert clips 16 bits at 255
                picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
            picture = picture.convert(mode).resize(width_height, Image.Resampling.BILINEAR)
    except Exception as error:  # the decoders raise OSError, SyntaxError, ValueError and more
        raise UserError(
            f"{path}: cannot be read as a picture ({error}); expected a whole PNG or JPEG file. "
            "Replace or delete it."
        ) from error
    pixels = np.asarray(picture)
    return pixels[None] if mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def find_images(root: Path, classes: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Finds pictures in a folder per class.

    Args:
        root: folder of the classes' folders, a Path.
        classes: names to number the classes by; None for all folders, sorted.

    Returns:
        {class: sorted paths of its pictures}

    Raises:
        UserError: there are no folders, one is empty, or one is not among `classes`.
    """
    found = _folders(root)
    strange = sorted(set(found) - set(classes or found))
    if strange or not found:
        came = f"the folders {strange}, not in `classes`" if strange else "no folder"
        raise UserError(
            f"{root}: {came}; expected a folder of pictures per class, {root}/<class>/*.png. "
            "Mend `root` or `classes`."
        )
    pictures = {name: _pictures(root / name) if name in found else [] for name in classes or found}
    empty = [name for name in found if not pictures[name]]
    if empty:
        raise UserError(
            f"{root / empty[0]}: no picture; expected files ending in "
            f"{', '.join(IMAGE_ENDINGS)}. Fill or delete the folder."
        )
    return pictures


def _folders(root):
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder; expected one that holds a folder of pictures per class. "
            "Mend `root`."
        )
    return sorted(
        path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _pictures(folder):
    return sorted(
        entry.path for entry in os.scandir(folder) if entry.name.lower().endswith(IMAGE_ENDINGS)
    )
