"""Drawings as images like those of MNIST: light on dark, fitted into a box, centred by mass."""

import numpy as np
from PIL import Image

from utils import UserError

BOX = 20 / 28  # the part of an MNIST image's side that a digit fills
LARGEST = 64  # pixels of a side; networks for larger images are for photographs
FAINTEST = 0.25  # of the strongest contrast; paper grain and JPEG blocks are fainter
WEAKEST = 64  # of 255; a weaker contrast is not amplified to the full range


def takes_drawings(shape):
    """Whether a network whose input is (channels, height, width) suits drawings by hand."""
    channels, height, width = shape
    return channels == 1 and height == width <= LARGEST


def fit(ink, size):
    """Formats a drawing like MNIST's digits (http://yann.lecun.com/exdb/mnist).

    The drawing is scaled, with its proportions, into a box of 20/28 of the image's side. Its centre
    of mass is placed on the middle pixel, (14, 14) of 28. A digit of MNIST is returned unchanged.

    Args:
        ink: (height, width) uint8; 0 where nothing is drawn.
        size: pixels of the image's side.

    Returns:
        (size, size) uint8

    Raises:
        UserError: nothing is drawn.
    """
    rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
    if not rows.size:
        raise UserError("there is nothing in the picture; expected a drawing, light or dark")
    drawn = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX * size / max(drawn.shape)
    height, width = (max(1, round(scale * side)) for side in drawn.shape)
    small = np.asarray(Image.fromarray(drawn).resize((width, height), Image.Resampling.BILINEAR))
    top, left = (_start(small.sum(axis), size) for axis in (1, 0))
    image = np.zeros((size, size), np.uint8)
    image[top : top + height, left : left + width] = small
    return image


def trace(grey):
    """Finds the drawing in an image, dark on light or light on dark: what differs from its edge.

    Args:
        grey: (height, width) uint8.

    Returns:
        (height, width) uint8 ink: 0 where nothing is drawn, 255 at the strongest contrast
    """
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    contrast = np.abs(grey - np.median(edge))
    most = max(contrast.max(), WEAKEST)
    return (255 * np.clip((contrast / most - FAINTEST) / (1 - FAINTEST), 0, 1)).astype(np.uint8)


def _start(mass, size):
    """The first row (or column) for rows of these masses, so that their centre is at size / 2."""
    total = int(mass.sum())  # whole numbers, so that static.js gets the same
    center = int(mass @ np.arange(len(mass))) / total if total else (len(mass) - 1) / 2
    return min(max(round(size / 2 - center), 0), size - len(mass))
