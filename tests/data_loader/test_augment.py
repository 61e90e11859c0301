"""Augmentation: one of each kind; the full set compares all with other libraries."""

import jax
import numpy as np
import pytest

from data_loader.augment import colour, geometric, mixing
from data_loader.transforms import random_shift
from utils import UserError

KEY = jax.random.key(0)


def pictures(count):
    return np.random.default_rng(0).integers(1, 256, (count, 1, 6, 8)).astype(np.uint8)


def batch_of(inputs, targets):
    return {"inputs": inputs, "targets": targets, "weight": np.ones(len(inputs), np.float32)}


def test_a_flip_mirrors_picture_mask_box_and_point_together():
    x, boxes = pictures(30), np.tile(np.array([1, 2, 4, 6], np.float32), (30, 1))
    targets = {
        "mask": x[:, 0].astype(np.int32),
        "box": boxes,
        "point": boxes[:, :2],
        "label": x[:, 0, 0, 0],
    }
    moved = jax.device_get(geometric.random_flip(batch_of(x, targets), key=KEY))
    flipped = (moved["inputs"] != x).any((1, 2, 3))
    assert 5 < flipped.sum() < 25
    np.testing.assert_array_equal(moved["inputs"][flipped], x[flipped][..., ::-1])
    np.testing.assert_array_equal(moved["targets"]["mask"], moved["inputs"][:, 0])
    np.testing.assert_array_equal(moved["targets"]["label"], x[:, 0, 0, 0])
    for flip, box, point in zip(
        flipped, *(moved["targets"][one] for one in ("box", "point")), strict=True
    ):
        assert box.tolist() == ([4, 2, 7, 6] if flip else [1, 2, 4, 6])
        assert point.tolist() == ([7, 2] if flip else [1, 2])


def test_a_shift_moves_the_mask_and_fills_both_with_zeros():
    x = pictures(20)
    moved = jax.device_get(random_shift(batch_of(x, x[:, 0].astype(np.int32)), 2, key=KEY))
    np.testing.assert_array_equal(moved["targets"], moved["inputs"][:, 0])
    assert (moved["inputs"] == 0).any()


def test_mixup_weighs_inputs_and_labels_alike_and_leaves_padding_out():
    x, labels = np.eye(4, dtype=np.float32), np.arange(4)
    batch = batch_of(x, labels) | {"weight": np.array([1, 1, 1, 0], np.float32)}
    mixed = jax.device_get(mixing.mixup(batch, 5, classes=4, key=KEY))
    np.testing.assert_allclose(mixed["targets"], mixed["inputs"], atol=1e-6)
    assert ((mixed["inputs"] > 0).sum(1) == [1, 2, 2, 1]).all()
    np.testing.assert_array_equal(mixed["weight"], batch["weight"])


# ---- what is refused ----

REFUSED = {
    "no pictures": (lambda: geometric.random_flip(np.zeros((3, 4)), key=KEY), "expected pictures"),
    "channels last": (
        lambda: geometric.random_flip(np.zeros((2, 28, 28, 3)), key=KEY), "before the pixels"
    ),
    "boxes without a name": (
        lambda: random_shift(batch_of(pictures(2), np.zeros((2, 5, 4))), 1, key=KEY), "boxes",
    ),
    "boxes of 5": (
        lambda: random_shift(
            batch_of(pictures(2), {"boxes": np.zeros((2, 5))}), 1, key=KEY
        ), r"targets.boxes have shape \(2, 5\)",
    ),
    "a crop too large": (
        lambda: geometric.random_crop(pictures(2), 40, key=KEY), "larger than the pictures"
    ),
    "no shift": (lambda: random_shift(pictures(2), 1.5, key=KEY), "padding is 1.5"),
    "an empty range": (
        lambda: geometric.random_resized_crop(pictures(2), area=(0.5, 0.1), key=KEY), "area is"
    ),
    "no number of classes": (
        lambda: mixing.mixup(batch_of(pictures(2), np.arange(2)), key=KEY), '"classes"'
    ),
    "a dict of targets": (
        lambda: mixing.mixup(batch_of(pictures(2), {"box": np.zeros((2, 4))}), key=KEY),
        "a dict with the keys",
    ),
    "16 bits": (
        lambda: colour.color_jitter(np.zeros((2, 1, 3, 3), np.uint16), key=KEY), "expected uint8"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_words(name):
    call, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        call()


def test_a_label_that_is_no_class_is_not_trained_as_if_it_were_none():
    mixed = mixing.mixup(batch_of(pictures(3), np.array([0, 1, 7])), classes=3, key=KEY)
    assert np.isnan(mixed["targets"][2]).all()
