"""The meta of a checkpoint is read without its arrays."""

import numpy as np
import pytest

from training.checkpoint.naming import file_name
from training.checkpoint.reading import read, read_meta
from training.checkpoint.saver import Saver
from training.checkpoint.single_file import write
from utils import UserError

META = {"epochs": 3, "best": 0.25, "files": {"metrics.jsonl": 100}}


@pytest.mark.parametrize("orbax", [False, True])
def test_the_meta_of_either_format_is_that_of_the_whole_checkpoint(tmp_path, orbax):
    if orbax:
        pytest.importorskip("orbax.checkpoint")
    with Saver(tmp_path, 1, orbax) as saver:
        saver.save({"weights": np.arange(8.0)}, META, file_name(3))
        saver.wait()
    path = tmp_path / file_name(3)
    assert read_meta(path) == read(path)[1] == META


def test_damaged_arrays_do_not_matter_and_a_damaged_header_is_refused(tmp_path):
    path = tmp_path / file_name(3)
    write(path, {"weights": np.arange(8.0)}, META)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    assert read_meta(path) == META
    with pytest.raises(UserError, match="'weights' has changed"):
        read(path)
    path.write_bytes(content.replace(b"0.25", b"0.75"))
    with pytest.raises(UserError, match="its metadata has changed"):
        read_meta(path)
    path.write_bytes(content[:40])
    with pytest.raises(UserError, match="its header is cut off"):
        read_meta(path)
    path.unlink()
    with pytest.raises(UserError, match="there is no such file"):
        read_meta(path)
