"""Images are read as a viewer shows them, whatever their names; what is none is named."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from data_loader.images import read_image
from tests.helpers.odd_images import in_mode, png, profile, smooth, tiff, with_orientation, written
from tests.helpers.project import by_set
from utils import UserError

SIZE = (20, 32)  # of the smooth picture
SEEN = smooth().astype(int)


def colours(content, **arguments):
    """The (height, width, 3) colours that are read from the bytes of a file."""
    return read_image(io.BytesIO(content), SIZE, "RGB", **arguments).transpose(1, 2, 0).astype(int)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_is_read_upright(kind, orientation):
    content = with_orientation(in_mode("RGB"), orientation, kind)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    read = read_image(io.BytesIO(content), upright.shape[:2], "RGB")
    np.testing.assert_array_equal(read, upright.transpose(2, 0, 1))


def test_a_large_turned_jpeg_is_not_stretched():
    content = with_orientation(in_mode("RGB", smooth(640, 400)), 6, "JPEG")
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    expected = np.asarray(upright.resize((48, 30), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    read = read_image(io.BytesIO(content), (30, 48), "RGB")
    assert np.abs(read.astype(int) - expected).max() <= 3


@pytest.mark.parametrize(("mode", "space"), [("RGB", "RGB "), ("L", "GRAY"), ("CMYK", "CMYK")])
def test_colours_are_those_of_the_embedded_profile(mode, space):
    image, wide = in_mode(mode), profile(space)
    content = written(image, "TIFF", icc_profile=wide)
    srgb = ImageCms.createProfile("sRGB")
    shown = ImageCms.profileToProfile(image, io.BytesIO(wide), srgb, outputMode="RGB")
    read = colours(content)
    assert np.abs(read - np.asarray(shown)).max() <= 1
    assert np.abs(read - np.asarray(image.convert("RGB"))).max() > 10  # without the profile


def test_what_is_transparent_is_white():
    image = in_mode("RGB")
    image.putalpha(image.getchannel("R").point(lambda x: 255 * (x > 99)))
    expected = np.where(SEEN[..., :1] > 99, SEEN, 255)
    for kind in ("PNG", "WEBP", "TIFF"):
        content = written(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
        np.testing.assert_array_equal(colours(content), expected)


@pytest.mark.parametrize("colour", [0, 2, 6])
def test_12_bits_in_files_of_16_are_scaled_by_their_range(colour):
    channels = {0: 1, 2: 3, 6: 4}[colour]
    opaque = np.full((*SIZE, 1), 65535)
    values = np.concatenate([SEEN * 16, opaque], -1)[..., :channels]
    expected = np.clip(np.round(255 * (SEEN * 16.0 - 100) / 3900), 0, 255)
    for interlaced in (False, True):
        read = colours(png(values, colour, 16, interlaced), value_range=(100, 4000))
        assert np.abs(read - expected[..., : min(channels, 3)]).max() <= 1
    if colour == 2:
        for order in "<>":
            content = tiff(values, 16, order, photometric=2)
            assert np.abs(colours(content, value_range=(100, 4000)) - expected).max() <= 1


@pytest.mark.parametrize("black_and_white", [(0, 1), (-1, 3.5)])
def test_floats_are_scaled_by_their_range(black_and_white):
    values, (black, white) = SEEN[..., 0] / 100 - 0.5, black_and_white
    expected = np.clip(np.round(255 * (values - black) / (white - black)), 0, 255)
    content = tiff(values, 32, sample_format=3)
    read = colours(content, value_range=black_and_white)
    assert np.abs(read - expected[..., None]).max() <= 1


def test_the_range_says_nothing_of_images_of_8_bits_or_with_a_maximum_of_their_own():
    for content in (
        written(in_mode("RGB"), "PNG"),
        written(in_mode("I;16"), "JPEG2000"),
        written(in_mode("P"), "GIF"),
    ):
        given = colours(content, value_range=(0, 99))
        np.testing.assert_array_equal(given, colours(content))
    pgm = b"P5 32 20 4095\n" + (SEEN[..., 0] * 16).astype(">u2").tobytes()
    assert np.abs(colours(pgm) - SEEN[..., :1]).max() <= 1
    assert np.abs(colours(pgm, value_range=(0, 4080)) - SEEN[..., :1]).max() <= 1


def test_the_gamma_of_a_png_is_that_of_a_viewer():
    chunk = (b"gAMA", struct.pack(">I", 100_000))  # linear
    read = colours(png(SEEN, 2, chunks=[chunk]))
    assert np.abs(read - 255 * (SEEN / 255) ** (1 / 2.2)).max() <= 1


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "BMP", "TIFF", "PNG", "AVIF", "JPEG2000"])
def test_the_content_counts_not_the_ending(tmp_path, kind):
    (tmp_path / "x.jpg").write_bytes(written(in_mode("L"), kind))
    read = read_image(tmp_path / "x.jpg", SIZE, "L")[0]
    assert np.abs(read.astype(int) - np.asarray(in_mode("L"))).mean() < 4


def test_heic_is_read_with_its_plugin_and_named_without(monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    heif.from_pillow(in_mode("RGB")).save(stream, quality=95)
    assert np.abs(colours(stream.getvalue()) - SEEN).mean() < 6
    monkeypatch.setitem(Image.OPEN, "HEIF", (None, lambda prefix: False))
    with pytest.raises(UserError, match=r"HEIC image, which .* a plugin: pip install pillow-heif"):
        colours(stream.getvalue())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (bytes(500), "file of zeros"),
        (b"\xef\xbb\xbf\n <!-- a -->\n<!DOCTYPE html><html>", "HTML page"),
        ("<html><title>é".encode("utf-16"), "HTML page"),
        (b"<?xml version='1.0'?><!-- x --><svg/>", "SVG drawing"),
        (b'{"error": 404}', "JSON file"),
        ("Grüße".encode("latin-1"), "text file"),
        (b"PK\x03\x04" + bytes(99), "ZIP archive"),
        (b"%PDF-1.7 ...", "PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript document"),
        (b"\0\0\0\x18ftypmp42" + bytes(99), "video"),
        (b"\0\0\1\xba" + bytes(99), "video"),
        (b"\0\5\26\7\0\2\0\0Mac OS X", "AppleDouble file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"/annex/objects/MD5E-s1--0.jpg", "git annex get"),
        (b"\x93NUMPY\x01\0v\0", "NumPy array"),
        (bytes(128) + b"DICM", "DICOM file"),
        (bytes(range(256)), "file of an unknown kind"),
        (written(in_mode("RGB"), "JPEG")[:300], "JPEG image, cut off or damaged"),
        (written(in_mode("RGB"), "PNG")[:90], "PNG image, cut off or damaged"),
        (b"\xff\x0a" + bytes(99), "JPEG XL image, .* pip install pillow-jxl-plugin"),
        (tiff(SEEN, 8, photometric=2, t50706=1), "camera raw file"),
    ],
    ids=str,
)
def test_what_is_no_image_is_named_for_what_it_is(tmp_path, content, words):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.jpg: cannot be read as a picture: .*{words}"):
        read_image(path, (8, 8), "L")


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(UserError, match=r"x\.jpg: cannot be read: No such file"):
        read_image(tmp_path / "x.jpg", (8, 8), "L")


@pytest.mark.parametrize("kind", by_set(["JPEG"], ["JPEG", "PNG"]))
def test_a_very_large_image_is_read_unless_a_limit_is_given(kind, tmp_path):
    """96 million pixels, of which Pillow by itself warns."""
    half = Image.new("L", (9_600, 10_000), 200)
    half.paste(50, (0, 0, 4_000, 10_000))
    half.save(tmp_path / "x", kind)
    read = read_image(tmp_path / "x", (4, 4), "L")[0].astype(int)
    assert np.abs(read - half.resize((4, 4), Image.Resampling.BILINEAR)).max() <= 2
    with pytest.raises(UserError, match=r"too large .* expected at most 1,000,000 pixels"):
        read_image(tmp_path / "x", (4, 4), "L", max_pixels=1_000_000)
