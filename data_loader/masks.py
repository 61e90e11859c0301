"""Pictures of masks: the number of a class at each pixel, in colours that tell classes apart."""

import colorsys

import numpy as np
from PIL import Image

GOLDEN = 0.618033988749895  # steps of hue by the golden ratio: neighbours are far apart
STRENGTH = 0.5  # of the colours over a picture


def palette(count: int) -> np.ndarray:
    """Returns (count, 3) uint8 colours; class 0, mostly the background, is black."""
    colours = [colorsys.hsv_to_rgb(GOLDEN * index % 1, 0.75, 0.95) for index in range(count)]
    colours[0] = (0, 0, 0)
    return np.round(255 * np.array(colours)).astype(np.uint8)


def label_axis(shape: tuple, size: tuple) -> int:
    """Returns the axis of the labels of (labels, height, width) or (height, width, labels).

    They are first where the last two sizes are those of the picture, else last.
    """
    return 0 if tuple(shape[1:]) == tuple(size) else -1


def mask_of(
    probabilities: np.ndarray, kind: str, size: tuple, threshold: float = 0.5
) -> np.ndarray:
    """Returns the mask of a picture's probabilities.

    Args:
        probabilities: (height, width, classes); of "sigmoid" also (labels, height, width), or
            (height, width) of a single label.
        kind: "softmax": the likeliest class at each pixel; "sigmoid": 1 and more for the likeliest
            label, 0 where none reaches the threshold.
        size: (height, width) of the picture.
        threshold: a probability.

    Returns:
        (height, width) integers.
    """
    if kind == "softmax":
        return probabilities.argmax(-1)
    if probabilities.ndim == 2:
        labels = probabilities[None]
    else:
        labels = np.moveaxis(probabilities, label_axis(probabilities.shape, size), 0)
    return np.where(labels.max(0) >= threshold, labels.argmax(0) + 1, 0)


def mask_image(mask: np.ndarray) -> Image.Image:
    """Returns a (height, width) mask of classes 0 to 255 as a picture with a palette.

    Its pixels are the numbers of the classes.
    """
    image = Image.fromarray(np.asarray(mask, np.uint8))
    image.putpalette(palette(256).tobytes())
    return image


def overlay(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns a picture with the colours of a mask laid over it; class 0 leaves it as it is.

    Args:
        pixels: (1 or 3, height, width) uint8.
        mask: (rows, columns) of classes; another size is stretched to the picture's.

    Returns:
        (height, width, 3) uint8
    """
    _, height, width = pixels.shape
    stretched = mask_image(mask).resize((width, height), Image.Resampling.NEAREST)
    mask, picture = np.asarray(stretched), np.moveaxis(pixels, 0, -1)
    mixed = (1 - STRENGTH) * picture + STRENGTH * palette(256)[mask]
    return np.where((mask == 0)[..., None], picture, mixed).astype(np.uint8)
