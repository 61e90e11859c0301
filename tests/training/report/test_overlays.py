"""Masks and boxes over the pictures of a report."""

import numpy as np
import pytest

from training.report.images import COLOURS, annotated

PICTURE = np.full((1, 6, 8), 100, np.uint8)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float32])
def test_a_mask_colours_its_classes_and_leaves_the_ground(dtype):
    mask = np.zeros((6, 8), dtype)
    mask[1:3, 2:5], mask[4, 7] = 1, 2
    shown = np.asarray(annotated(PICTURE, {"mask": mask}))
    assert (shown[mask == 0] == 100).all()
    for label in (1, 2):
        wanted = (100 + np.array(COLOURS[label - 1])) / 2
        assert abs(shown[mask == label] - wanted).max() <= 1
    np.testing.assert_array_equal(np.asarray(annotated(PICTURE, mask)), shown)


def test_maps_of_several_classes_are_one_mask():
    maps = np.zeros((2, 6, 8), np.float32)
    maps[0, :3], maps[1, 3:5] = 1, 1
    mask = np.repeat([1, 1, 1, 2, 2, 0], 8).reshape(6, 8)
    shown = [np.asarray(annotated(PICTURE, one)) for one in (maps, mask)]
    np.testing.assert_array_equal(*shown)


def test_a_box_is_drawn_along_its_outermost_pixels():
    shown = np.asarray(annotated(PICTURE, {"boxes": np.array([[1, 2, 5, 6], [3, 3, 3, 3]], float)}))
    changed = (shown != 100).any(-1)
    outline = np.zeros((6, 8), bool)
    outline[2:6, 1:5] = True
    outline[3:5, 2:4] = False
    np.testing.assert_array_equal(changed, outline)


@pytest.mark.parametrize("targets", [3, np.arange(10), {"class": 1, "box": np.zeros(4)}])
def test_other_targets_leave_a_picture_as_it_is(targets):
    np.testing.assert_array_equal(
        np.asarray(annotated(PICTURE, targets)).reshape(6, 8, -1)[..., 0], PICTURE[0]
    )


def test_what_is_no_picture_is_none():
    assert annotated(np.zeros(3, np.float32), 1) is None
