"""Transforms, compared with NumPy."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loader.transforms import normalize, random_shift
from tests.helpers.project import by_set, few


@few(max_examples=10)
@given(st.integers(1, 4), st.booleans())
def test_normalize_equals_numpy(channels, per_channel):
    x = np.random.default_rng(0).integers(0, 256, (3, channels, 5, 4), dtype=np.uint8)
    mean = np.linspace(0.1, 0.5, channels) if per_channel else 0.1307
    std = np.linspace(0.2, 0.3, channels) if per_channel else 0.3081
    columns = [np.reshape(value, (-1, 1, 1)) for value in (mean, std)]
    y = jax.jit(functools.partial(normalize, mean=mean, std=std))(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, (x / 255.0 - columns[0]) / columns[1], rtol=1e-5, atol=1e-6)


def shifted(image, down, right):
    """Returns the image shifted by NumPy: rolled, with the pixels rolled in set to 0."""
    rows, columns = np.indices(image.shape[1:])
    inside = (rows >= down) & (columns >= right)
    inside &= (rows < image.shape[1] + down) & (columns < image.shape[2] + right)
    return np.where(inside, np.roll(image, (down, right), (1, 2)), 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", by_set([3], [1, 3]))
def test_random_shift_makes_every_shift_up_to_the_largest_and_no_other(channels, dtype):
    pixels = 2
    x = np.random.default_rng(0).integers(1, 256, (400, channels, 9, 7)).astype(dtype)
    y = np.asarray(jax.jit(random_shift, static_argnums=1)(x, pixels, key=jax.random.key(0)))
    assert y.dtype == dtype
    reach = range(-pixels, pixels + 1)
    shifts = [(down, right) for down in reach for right in reach]
    seen = [[s for s in shifts if (shifted(a, *s) == b).all()] for a, b in zip(x, y, strict=True)]
    assert {len(found) for found in seen} == {1}
    counts = [sum(found[0] == s for found in seen) for s in shifts]
    assert min(counts) > 3  # 16 expected
    assert max(counts) < 40


def test_random_shift_is_a_pure_function_of_its_key():
    x = np.random.default_rng(0).integers(0, 256, (64, 1, 28, 28), dtype=np.uint8)
    before = x.copy()
    first, again, other = (random_shift(x, 3, key=jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(random_shift(x, 0, key=jax.random.key(0)), x)
