"""IDX files: real ones, and those that are missing, broken or mutated."""

import gzip
import hashlib
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loader import idx as idx_files
from data_loader.dataloader import DataLoader, IdxImages
from tests.helpers.idx_files import IMAGES, PAIR, compress, idx, write_pair
from tests.helpers.project import ROOT, few
from utils import UserError


@pytest.mark.parametrize("name", idx_files.CHECKSUMS["mnist"])
def test_the_mnist_files_in_data_have_the_published_checksums(name):
    content = gzip.decompress((ROOT / "data" / f"{name}.gz").read_bytes())
    assert hashlib.md5(content).hexdigest() == idx_files.CHECKSUMS["mnist"][name]


def test_mnist_has_its_known_values():
    train, test = IdxImages(ROOT / "data", "train", "mnist"), IdxImages(ROOT / "data", "test")
    assert (len(train), len(test)) == (60000, 10000)
    assert train.images.shape == (60000, 1, 28, 28)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert train.classes == list("0123456789")
    assert train.images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)  # the well-known value
    images, labels = train.__getitems__(np.array([3, 1]))
    np.testing.assert_array_equal(images[0], train[3][0])
    assert labels.tolist() == [1, 0]
    assert len(DataLoader(train, 512)) == 118


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("start", "split"),
    [
        ("train-", "train"),
        ("t10k-", "test"),
        ("emnist-letters-test-", "test"),
        ("my_train-", "train"),
    ],
)
def test_idx_files_may_have_any_prefix_and_be_gzipped(tmp_path, start, split, packed):
    write_pair(tmp_path, IMAGES, [0, 3, 2, 0, 1], start, packed)
    dataset = IdxImages(tmp_path, split, download="mnist")  # nothing is missing to download
    np.testing.assert_array_equal(dataset.images[:, 0], IMAGES)
    assert dataset.labels.tolist() == [0, 3, 2, 0, 1]
    assert dataset.classes == ["0", "1", "2", "3"]


def test_a_folder_may_contain_a_file_both_gzipped_and_not(tmp_path):
    for packed in (False, True):
        write_pair(tmp_path, IMAGES, range(5), packed=packed)
    assert len(IdxImages(tmp_path, "train")) == 5


def test_several_data_sets_in_one_folder_raise_an_error_that_names_them(tmp_path):
    for start in ("emnist-letters-train-", "emnist-digits-train-"):
        write_pair(tmp_path, IMAGES, range(5), start)
    with pytest.raises(UserError, match=r"emnist-digits-train-images.* and emnist-letters-train"):
        IdxImages(tmp_path, "train")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: None, "no such folder, so there is no train-images-idx3-ubyte and train-labels"),
        (lambda d: d.mkdir(), "has no train-images-idx3-ubyte and train-labels-idx1-ubyte"),
        (lambda d: d.write_text("a file"), "no such folder"),
        (
            lambda d: (write_pair(d, IMAGES, range(5)), (d / PAIR[1]).unlink()),
            "has no train-labels-idx1-ubyte; expected",
        ),
        (lambda d: write_pair(d, IMAGES, range(4)), "4 labels for the 5 images in"),
        (lambda d: write_pair(d, IMAGES[0], range(4)), "bytes 00000802; expected 00000803"),
        (lambda d: write_pair(d, IMAGES[:0], []), r"shape \(0, 4, 3\)"),
    ],
)
@pytest.mark.parametrize("named", [str, Path])
def test_files_that_are_missing_or_do_not_fit_are_named(tmp_path, make, message, named):
    folder = tmp_path / "own"
    make(folder)
    with pytest.raises(UserError, match=message) as error:
        IdxImages(named(folder), "train")
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("split", "download"), [("validation", None), ("train", "mnits"), (3, None)]
)
def test_unknown_splits_and_sources_are_refused(split, download):
    with pytest.raises(UserError, match=r"is .*; expected .*(train|mnist)"):
        IdxImages(ROOT / "data", split, download)


GOOD = idx(IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"bytes \(none\); expected 00000803"),
        (b"\x1f\x8b", "cannot be read"),
        (GOOD[:10], "whole header"),
        (GOOD[:-1], r"claims the shape \(5, 4, 3\), but not 60 bytes follow"),
        (GOOD + b"\0", "but not 60 bytes"),
        (compress(GOOD[:-1]), "but not 60 bytes"),
        (compress(GOOD + b"\0"), "but not 60 bytes"),
        (compress(GOOD)[:-9], "cannot be read"),
        (compress(GOOD)[:-8] + bytes(8), "CRC"),
        (compress(GOOD) + b"more", "cannot be read"),
        (b"<html>Sign in to the network</html>", "bytes 3c68746d"),
        (GOOD[:2] + b"\x0d" + GOOD[3:], "bytes 00000d03"),
        (GOOD[:4] + b"\xff" * 12, "claims the shape"),
        (compress(GOOD[:4] + b"\xff" * 12), "claims the shape"),
        (compress(GOOD[:4] + struct.pack(">3I", 100, 100, 10)), "claims the shape"),
    ],
)
def test_a_broken_idx_file_raises_an_error_with_the_reason(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        idx_files.read_idx(path, 3)
    assert str(path) in str(error.value)


@few(max_examples=300)
@given(st.data(), st.booleans(), st.booleans())
def test_a_mutated_idx_file_is_read_or_refused(tmp_path, data, packed, repacked):
    content = bytearray(compress(GOOD) if packed else GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 6))
        content[at : at + length] = data.draw(st.binary(max_size=6))
    path = tmp_path / "mutated"
    path.write_bytes(compress(content) if repacked and not packed else content)
    try:
        array = idx_files.read_idx(path, 3)
    except UserError as error:
        array, message = None, str(error)
    if array is None:
        assert str(path) in message
    else:
        assert array.ndim == 3
        assert 0 < array.size <= len(content) + 60


@pytest.mark.parametrize("claim", [(10, 1, 1), (2**12, 2**10, 2**6)])
def test_a_gzip_bomb_takes_no_memory(tmp_path, claim):
    path = tmp_path / "bomb"
    with gzip.open(path, "wb", 1) as file:
        file.write(b"\0\0\x08\x03" + struct.pack(">3I", *claim))
        for _ in range(32 if claim[0] == 10 else 1):
            file.write(bytes(2**20))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="claims the shape"):
            idx_files.read_idx(path, 3)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
