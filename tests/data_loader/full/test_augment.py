"""Augmentations, compared with NumPy, SciPy, Pillow and with masks drawn from the boxes."""

import colorsys
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from data_loader.augment import colour, geometric, mixing
from data_loader.augment.moving import about_middle, affine, picture_size
from data_loader.transforms import random_shift
from tests.helpers.project import examples
from utils import UserError

KEY = jax.random.key(0)
GEOMETRIC = {
    "flip": lambda batch, key: geometric.random_flip(batch, vertical=True, key=key),
    "shift": lambda batch, key: random_shift(batch, 3, key=key),
    "crop": lambda batch, key: geometric.random_crop(batch, [26, 30], 2, key=key),
    "resized": lambda batch, key: geometric.random_resized_crop(batch, 20, (0.3, 1), key=key),
    "rotation": lambda batch, key: geometric.random_rotation(batch, 30, key=key),
    "affine": lambda batch, key: geometric.random_affine(
        batch, 20, 0.1, (0.8, 1.2), 10, key=key
    ),
    "policy": lambda batch, key: colour.rand_augment(batch, 3, 15, key=key),
}  # fmt: skip


def pictures(count, channels=1, height=15, width=18, dtype=np.uint8, seed=0):
    random = np.random.default_rng(seed)
    values = random.integers(1, 256, (count, channels, height, width))
    return (values / (1 if np.dtype(dtype).kind == "u" else 255)).astype(dtype)


def batch_of(inputs, targets, weight=None):
    weight = np.ones(len(inputs), np.float32) if weight is None else weight
    return {"inputs": inputs, "targets": targets, "weight": weight}


def boxes_drawn(count=6, height=30, width=36, seed=0):
    """A batch of masks drawn from one box for each picture, and from the point in its middle."""
    random = np.random.default_rng(seed)
    low = random.integers(8, 14, (count, 2))
    high = low + random.integers(6, 10, (count, 2))
    boxes = np.concatenate([low, high], 1).astype(np.float32)
    y, x = np.mgrid[:height, :width] + 0.5
    mask = np.stack([(x > x0) & (x < x1) & (y > y0) & (y < y1) for x0, y0, x1, y1 in boxes]).astype(
        np.int32
    )
    targets = {
        "mask": mask,
        "boxes": boxes,
        "points": (low + high) / np.float32(2),
        "label": low[:, 0],
    }
    return batch_of((255 * mask[:, None]).astype(np.uint8), targets)


@pytest.mark.parametrize("name", GEOMETRIC)
def test_picture_mask_boxes_and_points_move_together(name):
    batch = boxes_drawn(40)
    moved = jax.device_get(jax.jit(GEOMETRIC[name])(batch, KEY))
    height, width = moved["inputs"].shape[-2:]
    assert picture_size(moved) == moved["targets"]["mask"].shape[-2:]
    changed, columns, rows = 0, np.arange(width), np.arange(height)
    for picture, mask, box, point in zip(
        moved["inputs"][:, 0], *(moved["targets"][one] for one in ("mask", "boxes", "points")),
        strict=True,
    ):  # fmt: skip
        assert set(np.unique(mask)) <= {0, 1}
        if name != "policy":  # which changes colours, too
            np.testing.assert_array_less(abs(picture / 255 - mask)[_inner(mask)], 0.01)
        where = np.argwhere(mask)
        if not len(where):
            continue
        (y0, x0), (y1, x1) = where.min(0), where.max(0) + 1
        # The box is the smallest around what was drawn, to the pixel; of what is turned, around it.
        slack = 0.6 if name in ("flip", "shift", "crop") else 1.6
        assert np.all(abs(box - [x0, y0, x1, y1]) <= slack), (box, where.min(0), where.max(0))
        assert np.all(box >= 0)
        assert np.all(box <= [width, height, width, height])
        inside = 0 < point[0] < width and 0 < point[1] < height
        if inside and box[0] > 0 and box[1] > 0 and box[2] < width and box[3] < height:
            middle = [(columns + 0.5)[where[:, 1]].mean(), (rows + 0.5)[where[:, 0]].mean()]
            np.testing.assert_allclose(point, middle, atol=0.6)
            changed += 1
    assert changed > 10
    np.testing.assert_array_equal(moved["targets"]["label"], batch["targets"]["label"])
    assert moved["inputs"].dtype == np.uint8
    assert moved["targets"]["mask"].dtype == np.int32


def _inner(mask):
    """Where all neighbours are of the same class; not at the border."""
    same = scipy.ndimage.minimum_filter(mask, 3) == scipy.ndimage.maximum_filter(mask, 3)
    return np.pad(same[1:-1, 1:-1], 1)


@examples(12)
@given(
    st.sampled_from(["uint8", "float32", "int32"]), st.integers(1, 3),
    st.integers(4, 9), st.integers(5, 8), st.booleans(),
)  # fmt: skip
def test_any_affine_map_equals_scipys(dtype, channels, height, width, nearest):
    x = pictures(2, channels, height, width, np.uint8).astype(dtype)
    random = np.random.default_rng(height * width)
    matrix = np.eye(2, 3) + random.normal(size=(2, 2, 3)) * [0.2, 0.2, 2]
    batch = batch_of(x, {"mask": x} if nearest else np.zeros(2))
    moved = affine(batch, jnp.asarray(matrix, jnp.float32), (height + 1, width), 7)
    found = moved["targets"]["mask"] if nearest else moved["inputs"]
    for picture, forward, result in zip(x, matrix, np.asarray(found), strict=True):
        back = np.linalg.inv(forward[:, :2])
        offset = -back @ forward[:, 2]
        # SciPy counts rows first, and from the middle of the first pixel.
        swapped = back[::-1, ::-1]
        shift = offset[::-1] + swapped @ [0.5, 0.5] - 0.5
        for one, plane in zip(picture, result, strict=True):
            wanted = scipy.ndimage.affine_transform(
                one.astype(float), swapped, shift, (height + 1, width), order=0 if nearest else 1,
                mode="grid-constant", cval=0 if nearest else 7,
            )  # fmt: skip
            wrong = abs(wanted - plane) > (0.51 if dtype != "float32" else 1e-2)
            assert wrong.mean() <= (0.03 if nearest else 0)  # halves round either way


def test_a_turn_by_a_right_angle_equals_numpys():
    x = pictures(3, 2, 9, 9)
    about = about_middle(math.pi / 2 * jnp.ones(3), 1, 0, 0, 0, 0, (9, 9))
    np.testing.assert_array_equal(affine(x, about, (9, 9)), np.rot90(x, -1, (2, 3)))


def test_flips_and_crops_alone_return_pixels_that_were_there():
    x = pictures(200, 3, 6, 7)
    flipped = np.asarray(geometric.random_flip(x, key=KEY))
    count = 0
    for before, after in zip(x, flipped, strict=True):
        assert (after == before).all() or (after == before[..., ::-1]).all()
        count += (after != before).any()
    assert 70 < count < 130
    cropped = np.asarray(geometric.random_crop(x, [4, 5], key=KEY))
    windows = np.lib.stride_tricks.sliding_window_view(x, (4, 5), (2, 3))
    found = (windows == cropped[:, :, None, None]).all((1, 4, 5))
    assert (found.sum((1, 2)) == 1).all()
    assert (found.sum(0) > 5).all()  # of 9 places and 200 pictures


def test_weights_of_pixels_move_with_them_and_padding_has_none():
    x = pictures(5, 1, 6, 6)
    batch = batch_of(x, (x[:, 0] > 99).astype(np.int32), np.ones((5, 6, 6), np.float32))
    moved = random_shift(batch, 2, key=KEY)
    np.testing.assert_array_equal(moved["weight"] > 0, moved["inputs"][:, 0] > 0)
    np.testing.assert_array_equal(moved["targets"], moved["inputs"][:, 0] > 99)


# ---- mixing ----


def soft_cross_entropy(logits, targets):
    return -(targets * jax.nn.log_softmax(logits)).sum(-1)


@examples(12)
@given(st.sampled_from([2, 7]), st.integers(0, 2**31), st.sampled_from(["uint8", "float32"]))
def test_mixup_is_the_blend_of_two_examples_and_its_loss_that_of_both_by_their_weights(
    count, seed, dtype
):
    random = np.random.default_rng(seed)
    x, labels = pictures(count, 2, 3, 4, dtype, seed), random.integers(0, 5, count)
    weight = (random.integers(0, 3, count) * (np.arange(count) < count - 1)).astype(np.float32)
    mixed = mixing.mixup(batch_of(x, labels, weight), 1, classes=5, key=jax.random.key(seed))
    other, other_labels = np.roll(x, 1, 0).astype(float), np.roll(labels, 1)
    other_weight = np.roll(weight, 1)
    logits = jnp.asarray(random.normal(size=(count, 5)), jnp.float32)
    loss = soft_cross_entropy(logits, mixed["targets"]) * mixed["weight"]
    one, two = (soft_cross_entropy(logits, np.eye(5)[of]) for of in (labels, other_labels))
    for i in range(count):
        if not weight[i] * other_weight[i]:
            np.testing.assert_array_equal(mixed["inputs"][i], x[i])
            np.testing.assert_array_equal(mixed["targets"][i], np.eye(5)[labels[i]])
            assert mixed["weight"][i] == weight[i]
            continue
        wide = np.unravel_index(abs(x[i] - other[i]).argmax(), x[i].shape)
        share = (mixed["inputs"][i][wide] - other[i][wide]) / (x[i][wide] - other[i][wide])
        atol = 0.51 if dtype == "uint8" else 1e-5
        blend = share * x[i] + (1 - share) * other[i]
        np.testing.assert_allclose(mixed["inputs"][i], blend, atol=2 * atol)
        wanted = share * weight[i] * one[i] + (1 - share) * other_weight[i] * two[i]
        np.testing.assert_allclose(loss[i], wanted, atol=0.1 if dtype == "uint8" else 1e-3)
    np.testing.assert_allclose(mixed["targets"].sum(1), 1, atol=1e-6)
    assert mixed["inputs"].dtype == dtype


def test_the_shares_of_mixup_have_the_beta_distribution():
    from scipy.stats import beta, kstest

    x = np.zeros((3000, 1), np.float32)
    x[::2] = 1
    mixed = np.asarray(mixing.mixup(batch_of(x, x[:, 0]), 0.4, key=KEY)["inputs"][:, 0])
    shares = np.where(x[:, 0] == 1, mixed, 1 - mixed)
    assert kstest(shares, beta(0.4, 0.4).cdf).pvalue > 0.01
    some = np.asarray(mixing.mixup(batch_of(x, x[:, 0]), 5, 0.25, key=KEY)["inputs"] != x)
    assert 0.2 < some.mean() < 0.3


def test_cutmix_pastes_one_rectangle_and_counts_its_pixels():
    x, labels = pictures(50, 3, 12, 10), np.arange(50)
    weight = (np.arange(50) < 47).astype(np.float32)
    mixed = jax.device_get(mixing.cutmix(batch_of(x, labels, weight), classes=50, key=KEY))
    pasted = (mixed["inputs"] != x).any(1)
    sizes = []
    for i in range(50):
        rows, columns = pasted[i].any(1), pasted[i].any(0)
        np.testing.assert_array_equal(
            mixed["inputs"][i], np.where(np.outer(rows, columns), np.roll(x, 1, 0)[i], x[i])
        )
        share = rows.sum() * columns.sum() / 120
        np.testing.assert_allclose(mixed["targets"][i, i], 1 - share, atol=1e-6)
        np.testing.assert_allclose(mixed["targets"][i, i - 1], share, atol=1e-6)
        sizes.append(share)
    assert sizes[0] == sizes[47] == sizes[48] == 0  # beside padding
    assert np.mean(sizes) > 0.2
    np.testing.assert_array_equal(mixed["weight"], weight)


def test_cutmix_pastes_masks_with_the_pictures():
    x = pictures(20, 1, 8, 8)
    mixed = mixing.cutmix(batch_of(x, (x[:, 0] > 99).astype(np.int32)), key=KEY)
    np.testing.assert_array_equal(mixed["targets"], mixed["inputs"][:, 0] > 99)
    assert (mixed["inputs"] != x).any()


# ---- colours ----

FACTORS = {
    "brightness": (colour._brighten, ImageEnhance.Brightness),
    "contrast": (colour._raise_contrast, ImageEnhance.Contrast),
    "saturation": (colour._saturate, ImageEnhance.Color),
}


@pytest.mark.parametrize("name", FACTORS)
def test_colours_change_as_pillows(name):
    change, enhance = FACTORS[name]
    x, factors = pictures(4, 3, 9, 8), np.array([0.3, 0.8, 1, 1.7], np.float32)
    changed = colour._from_unit(change(colour._to_unit(x), jnp.asarray(factors)), x)
    for picture, factor, result in zip(x, factors, changed, strict=True):
        image = Image.fromarray(picture.transpose(1, 2, 0))
        wanted = np.asarray(enhance(image).enhance(float(factor))).transpose(2, 0, 1)
        assert abs(np.asarray(result, int) - wanted).max() <= 2  # Pillow rounds the greys


@examples(40)
@given(st.tuples(*[st.integers(0, 255)] * 3), st.floats(-0.5, 0.5))
def test_the_hue_turns_as_in_pythons_hsv(pixel, turn):
    x = np.array(pixel, np.uint8).reshape(1, 3, 1, 1)
    turned = colour._from_unit(colour._turn_hue(colour._to_unit(x), jnp.full(1, turn)), x)
    hue, saturation, value = colorsys.rgb_to_hsv(*(one / 255 for one in pixel))
    wanted = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    np.testing.assert_allclose(np.asarray(turned).ravel(), np.multiply(wanted, 255), atol=0.6)


def test_color_jitter_stays_in_its_limits_and_leaves_pictures_without_settings():
    x = np.full((500, 3, 2, 2), 100, np.uint8)
    np.testing.assert_array_equal(colour.color_jitter(pictures(3, 3), key=KEY), pictures(3, 3))
    bright = np.asarray(colour.color_jitter(x, brightness=0.4, key=KEY))
    assert (bright.min(), bright.max()) >= (60, 138)
    assert bright.max() <= 140
    with pytest.raises(UserError, match=r"hue is 0\.1, but pictures have 1 channels"):
        colour.color_jitter(pictures(2), hue=0.1, key=KEY)


def test_erased_rectangles_have_the_wanted_area_shape_and_frequency():
    x = np.ones((400, 1, 40, 40), np.uint8)
    erased = np.asarray(colour.random_erasing(x, 0.25, (0.05, 0.1), (0.5, 2), key=KEY) == 0)[:, 0]
    assert 60 < erased.any((1, 2)).sum() < 140
    for one in erased[erased.any((1, 2))]:
        rows, columns = one.any(1).sum(), one.any(0).sum()
        assert one.sum() == rows * columns <= 0.1 * 1600 * 1.2
    square = np.asarray(colour.cutout(x, 8, key=KEY) == 0)
    assert square.sum((1, 2, 3)).max() == 64
    assert (square.mean(0) > 0).all()


def test_operations_of_rand_augment_equal_pillows():
    x = pictures(30, 3, 9, 9)
    x = (40 + x // 2).astype(np.uint8)  # so that autocontrast does something
    one = jnp.arange(30) % 3 + 4
    colours = colour._recolour(colour._to_unit(x), one, jnp.ones(30), 0.5)
    changed = np.asarray(colour._from_unit(colours, x), int)
    for picture, number, result in zip(x, np.asarray(one), changed, strict=True):
        image = Image.fromarray(picture.transpose(1, 2, 0))
        wanted = {
            4: lambda image: ImageOps.posterize(image, 6),
            5: lambda image: ImageOps.solarize(image, 128),
            6: ImageOps.autocontrast,
        }[int(number)](image)
        assert abs(result - np.asarray(wanted, int).transpose(2, 0, 1)).max() <= 1


def test_rand_augment_of_no_strength_changes_at_most_colours_that_it_stretches():
    x = np.tile(np.array([0, 255], np.uint8), (40, 3, 6, 3))
    np.testing.assert_array_equal(colour.rand_augment(x, magnitude=0, key=KEY), x)
    assert (np.asarray(colour.rand_augment(x, key=KEY)) != x).any((1, 2, 3)).mean() > 0.5
