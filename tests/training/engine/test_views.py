"""Test-time augmentation: `test.py --tta` averages over views of the inputs."""

import numpy as np
import pytest

from data_loader.augment import views

VIEWS = {
    "horizontal_flip": lambda x: x[..., ::-1],
    "vertical_flip": lambda x: x[..., ::-1, :],
    "half_turn": lambda x: x[..., ::-1, ::-1],
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_twice_is_the_picture_and_once_is_numpys(name):
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    once = getattr(views, name)(x)
    np.testing.assert_array_equal(once, VIEWS[name](x))
    np.testing.assert_array_equal(getattr(views, name)(once), x)
