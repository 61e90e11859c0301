"""The latest, the best or the named checkpoint is found."""

import os

import numpy as np
import pytest

from training.checkpoint.naming import (
    BEST,
    best,
    file_name,
    find,
    latest,
    numbered,
    set_aside_after,
)
from training.checkpoint.single_file import write
from utils import UserError


def test_the_latest_is_the_furthest_in_training_not_in_the_alphabet(tmp_path):
    order = [(1, 5), (1, 40), (1,), (2, 100), (2,), (9,), (10, 1), (10,), (11, 3)]
    for arguments in reversed(order):
        (tmp_path / file_name(*arguments)).touch()
    (tmp_path / BEST).touch()
    assert [path.name for path in numbered(tmp_path)] == [file_name(*each) for each in order]
    assert latest(tmp_path) == tmp_path / "checkpoint-epoch_11-batch_3.params"
    assert latest(str(tmp_path)) == latest(tmp_path)


def test_a_file_or_a_run_folder_is_found(tmp_path):
    assert latest(tmp_path) is best(tmp_path) is None
    (tmp_path / BEST).touch()
    assert find(tmp_path) == tmp_path / BEST  # the only one there is
    (tmp_path / file_name(4)).touch()
    assert find(tmp_path) == find(str(tmp_path)) == tmp_path / file_name(4)
    assert find(tmp_path, prefer_best=True) == tmp_path / BEST
    assert find(tmp_path / file_name(4), prefer_best=True) == tmp_path / file_name(4)


def test_a_checkpoint_that_is_not_found_is_reported_with_the_existing_ones(tmp_path):
    with pytest.raises(UserError, match=r"run: there is no checkpoint here; .* has none\.$"):
        find(tmp_path / "run")
    with pytest.raises(UserError, match=r"there is no checkpoint here; .* has none\.$"):
        find(tmp_path)
    for epoch in range(1, 13):
        (tmp_path / file_name(epoch)).touch()
    with pytest.raises(
        UserError, match=r"epoch_99\.params: there is no .* has checkpoint-epoch_12"
    ):
        find(tmp_path / file_name(99))
    with pytest.raises(UserError, match=r"no checkpoint here; .* \(12 in all\)\.$"):
        find(tmp_path / file_name(99))
    assert find(tmp_path, prefer_best=True) == tmp_path / file_name(12)  # of a run without a best


def test_checkpoints_later_than_the_resumed_one_are_set_aside_and_not_deleted(tmp_path):
    for event in [(1,), (2,), (3, 5), (3,), (4, 1)]:
        write(tmp_path / file_name(*event), {"n": np.int64(0)}, {})
    aside = set_aside_after(tmp_path, 3, 5)
    assert sorted(os.listdir(aside)) == [file_name(3), file_name(4, 1)]
    assert latest(tmp_path) == tmp_path / file_name(3, 5)
    assert set_aside_after(tmp_path, 3, 5) is None
    again = set_aside_after(tmp_path, 1)
    assert again != aside
    assert sorted(os.listdir(again)) == [file_name(2), file_name(3, 5)]
