"""A corpus of odd images is read as Pillow's own conversions show it, or refused in words."""

import io
import random

import numpy as np
from PIL import Image, ImageCms, ImageOps

from data_loader.images import open_image, read_image, render
from tests.helpers.odd_images import corpus
from utils import UserError


def as_pillow_shows(content):
    """What Pillow's own conversions give, over white: (height, width, 3)."""
    image = Image.open(io.BytesIO(content))
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image) if b"Exif\0\0XX" not in content else image
    if image.mode in ("I;16", "I;16B", "I"):
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    alpha = None
    if "A" in image.getbands() or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA"))[..., 3:] / 255
    kind = {"LA": "L", "1": "L"}.get(image.mode, image.mode)
    kind = kind if kind in ("L", "CMYK", "LAB") else "RGB"
    if image.mode != kind:  # a palette may have transparent colours, which RGB alone does not keep
        image = image.convert("LA" if kind == "L" else "RGBA").convert(kind)
    source = ImageCms.createProfile("LAB") if kind == "LAB" else profile and io.BytesIO(profile)
    if source:
        try:
            srgb = ImageCms.createProfile("sRGB")
            image = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
        except ImageCms.PyCMSError:  # broken, or of another kind of image
            pass
    pixels = np.asarray(image.convert("RGB"))
    return pixels if alpha is None else np.round(pixels * alpha + 255 * (1 - alpha))


def difference(path, content, expected):
    """In words, what is not as expected of a file; None if all is."""
    if isinstance(expected, str):
        try:
            read_image(path, (20, 32), "RGB")
        except UserError as error:
            return None if expected in str(error) and str(path) in str(error) else str(error)
        return "is read"
    expected = as_pillow_shows(content) if expected is None else expected
    with open_image(path) as image:
        seen = np.asarray(render(image, "RGB"))
    if seen.shape != expected.shape or np.abs(seen.astype(int) - expected).max() > 1:
        return "looks otherwise"
    colour, grey = (read_image(path, expected.shape[:2], mode) for mode in ("RGB", "L"))
    of_seen = np.asarray(Image.fromarray(seen).convert("L")).astype(int)
    same = (colour == seen.transpose(2, 0, 1)).all() and np.abs(grey[0] - of_seen).max() <= 1
    return None if same else "its array is not what is seen"


def test_odd_images_are_read_as_a_viewer_shows_them(tmp_path):
    files = list(corpus())
    assert len(files) > 300
    assert len({name for name, _, _ in files}) == len(files)
    wrong = {}
    for name, content, expected in files:
        (tmp_path / name).write_bytes(content)
        if (found := difference(tmp_path / name, content, expected)) is not None:
            wrong[name] = found
    assert wrong == {}


def test_damaged_images_are_read_or_refused_in_words(tmp_path):
    chance = random.Random(0)
    for name, content, _ in corpus():
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        end = chance.choice([len(damaged), chance.randrange(len(damaged))])
        (tmp_path / name).write_bytes(damaged[:end])
        try:
            read, message = read_image(tmp_path / name, (7, 5), "RGB", (0, 255)), ""
        except UserError as error:
            read, message = None, str(error)
        if read is None:
            assert str(tmp_path / name) in message
            assert "\n" not in message
        else:
            assert (read.shape, read.dtype) == ((3, 7, 5), np.uint8)
