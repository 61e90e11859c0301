"""Test-time augmentation: `test.py --tta` averages over views of the inputs."""

import jax.numpy as jnp
import numpy as np
import pytest

from data_loader.augment import views
from training.engine.views import average_views, bind_views

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


def everything(params, inputs, key, train):
    """Maps in either layout, boxes and classes, of which none depends on the view."""
    height, width = inputs.shape[-2:]
    bright = inputs[:, 0] > 0
    columns, rows = bright.any(1), bright.any(2)
    last = [size - jnp.argmax(one[:, ::-1], 1) for one, size in ((columns, width), (rows, height))]
    box = [jnp.argmax(columns, 1), jnp.argmax(rows, 1), *last]
    return {
        "map": jnp.moveaxis(inputs, 1, -1), "mask": inputs, "plane": inputs[:, 0],
        "box": jnp.stack(box, -1).astype(jnp.float32), "class": inputs.sum((2, 3)),
    }, params  # fmt: skip


def test_maps_and_boxes_are_moved_back_before_they_are_averaged():
    x = np.zeros((2, 3, 6, 5), np.float32)
    x[0, :, 1, 1], x[1, 1, 0, 1] = [1, 2, 3], 4
    x[1, 0, 0, 2] = 1
    everything.preprocess = lambda inputs: inputs
    forward = average_views(everything, bind_views(VIEWS))
    wanted, found = everything({}, x, None, False)[0], forward({}, x, None, False)[0]
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], err_msg=name)
