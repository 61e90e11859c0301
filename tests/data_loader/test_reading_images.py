"""Images of a folder: sizes, modes, shares of it, broken files."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_loader import images as image_files
from data_loader.dataloader import DataLoader, ImageFolder
from tests.helpers.data_sets import listed
from tests.helpers.idx_files import IMAGES
from tests.helpers.project import few
from utils import UserError


def paint(root, height=6, width=5, per_class=3, ending="png"):
    """Writes images of two classes with Pillow, and returns their pixels."""
    painted = np.random.default_rng(1).integers(0, 256, (2, per_class, height, width, 3), np.uint8)
    for name, images in zip(["dog", "cat"], painted, strict=True):
        (root / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{number}.{ending}")
    return painted


def test_images_are_read_by_class_channels_first_and_pixel_by_pixel(tmp_path):
    dogs, cats = paint(tmp_path)
    (tmp_path / "dog" / "notes.txt").write_text("not a picture")
    (tmp_path / ".cache").mkdir()
    dataset = ImageFolder(tmp_path, [6, 5], "RGB")
    assert dataset.classes == ["cat", "dog"]
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for number, image in enumerate(np.concatenate([cats, dogs])):
        read, label = dataset[number]
        np.testing.assert_array_equal(read, image.transpose(2, 0, 1))
        assert read.dtype == np.uint8
        assert label == number // 3


def test_grey_images_have_one_channel(tmp_path):
    dogs, _ = paint(tmp_path)
    read, _ = ImageFolder(str(tmp_path), (6, 5))[3]
    luma = dogs[0] @ [0.299, 0.587, 0.114]  # ITU-R 601, which Pillow follows
    assert read.shape == (1, 6, 5)
    np.testing.assert_allclose(read[0], luma, atol=1)


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG"])
def test_images_are_resized(tmp_path, ending):
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(np.tile(ramp, (480, 1))).save(tmp_path / "a" / f"ramp.{ending}")
    read, _ = ImageFolder(tmp_path, [12, 16], "RGB")[0]
    assert read.shape == (3, 12, 16)
    expected = ramp.reshape(16, 40).mean(1)
    np.testing.assert_allclose(read, np.broadcast_to(expected, (3, 12, 16)), atol=4)


def test_images_of_16_bits_keep_their_shades(tmp_path):
    (tmp_path / "a").mkdir()
    shades = np.arange(0, 2**16, 2**10, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(shades).save(tmp_path / "a" / "x.png")
    np.testing.assert_array_equal(ImageFolder(tmp_path, [8, 8])[0][0][0], shades // 256)


def test_named_classes_keep_their_labels_in_a_split_that_lacks_one(tmp_path):
    paint(tmp_path)
    dataset = ImageFolder(tmp_path, [6, 5], classes=["bird", "cat", "dog"])
    assert dataset.classes == ["bird", "cat", "dog"]
    assert dataset.labels.tolist() == [1, 1, 1, 2, 2, 2]


def test_shares_of_one_folder_split_the_images_of_each_class(tmp_path):
    paint(tmp_path, per_class=10)
    whole, training, test = (
        ImageFolder(tmp_path, [6, 5], share=share) for share in (None, [0, 0.7], [0.7, 1])
    )
    assert training.labels.tolist() == [0] * 7 + [1] * 7
    assert test.labels.tolist() == [0] * 3 + [1] * 3
    assert sorted(training.paths + test.paths) == whole.paths
    assert training.paths != [*whole.paths[:7], *whole.paths[10:17]]  # not by the alphabet
    assert training.paths == ImageFolder(tmp_path, [6, 5], share=(0, 0.7)).paths


@pytest.mark.parametrize("share", [0.8, [0.8], [0.8, 0.2], [0, 1.5], ["0", "1"], [0, 0.5, 1]])
def test_a_share_is_from_and_to(tmp_path, share):
    paint(tmp_path)
    with pytest.raises(UserError, match=r"share is .*; expected \[from, to\]"):
        ImageFolder(tmp_path, [6, 5], share=share)


@pytest.mark.parametrize("arguments", [{"workers": 3}, {"workers": 1, "worker_kind": "process"}])
def test_images_decoded_in_parallel_are_the_same(tmp_path, arguments):
    paint(tmp_path, ending="jpg")
    dataset = ImageFolder(tmp_path, [8, 8], "RGB")
    expected = DataLoader(dataset, 4, True, prefetch=0).batches(1)
    assert listed(DataLoader(dataset, 4, True, **arguments).batches(1)) == listed(expected)


def test_a_broken_image_is_named_also_from_a_worker(tmp_path):
    paint(tmp_path)
    broken = tmp_path / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    loader = DataLoader(ImageFolder(tmp_path, [8, 8]), 6, workers=1, worker_kind="process")
    with pytest.raises(UserError, match=r"dog.1\.png: cannot be read as a picture"):
        next(loader.batches(1))


@pytest.mark.parametrize(
    "content", [b"", b"plain text", b"GIF89a" + bytes(50), b"\xff\xd8\xff\xe0"]
)
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.png: cannot be read as a picture: "):
        image_files.read_image(tmp_path / "x.png", (8, 8), "L")


@few(max_examples=150)
@given(st.data(), st.sampled_from(["PNG", "JPEG"]), st.sampled_from(["L", "RGB"]))
def test_a_mutated_image_is_read_or_refused(tmp_path, data, kind, mode):
    stream = io.BytesIO()
    Image.fromarray(IMAGES[0]).resize((20, 20)).save(stream, kind)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6))
    (tmp_path / "x").write_bytes(content)
    try:
        image = image_files.read_image(tmp_path / "x", (9, 7), mode)
    except UserError as error:
        image, message = None, str(error)
    if image is None:
        assert str(tmp_path / "x") in message
    else:
        assert image.shape == (1 if mode == "L" else 3, 9, 7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d.rmdir(), "no such folder"),
        (lambda d: None, "no folder; expected a folder of pictures per class"),
        (lambda d: (paint(d), (d / "elk").mkdir()), "elk: no picture. Fill or delete"),
    ],
)
def test_folders_that_are_missing_or_empty_are_named(tmp_path, make, message):
    folder = tmp_path / "pictures"
    folder.mkdir()
    make(folder)
    with pytest.raises(UserError, match=message) as error:
        ImageFolder(folder, [8, 8])
    assert str(folder) in str(error.value)


def test_a_folder_that_is_not_in_classes_raises_an_error(tmp_path):
    paint(tmp_path)
    with pytest.raises(UserError, match=r"the folders \['dog'\], not in `classes`"):
        ImageFolder(tmp_path, [8, 8], classes=["cat"])


@pytest.mark.parametrize("size", [8, [8], [8, 0], [8.0, 8], "88", [1, 2, 3], None])
def test_a_size_is_height_and_width(tmp_path, size):
    with pytest.raises(UserError, match=r"size is .*; expected \[height, width\]"):
        ImageFolder(tmp_path, size)


def test_a_mode_is_grey_or_colour(tmp_path):
    with pytest.raises(UserError, match="mode is 'CMYK'; expected 'L' or 'RGB'"):
        ImageFolder(tmp_path, [8, 8], "CMYK")
