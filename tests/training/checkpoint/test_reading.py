"""Checkpoints are read without JAX, their meta without the arrays; damaged ones are refused."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.python_process import python
from training.checkpoint.naming import BEST, file_name
from training.checkpoint.reading import read, read_meta
from training.checkpoint.saver import Saver
from training.checkpoint.single_file import write
from utils import UserError

META = {"epochs": 3, "best": 0.25, "files": {"metrics.jsonl": 100}}


def test_checkpoints_are_read_without_jax(tmp_path):
    write(tmp_path / "a", {"params": {"w": jnp.ones(2, jnp.bfloat16)}}, META)
    script = """if True:
        import sys
        from training.checkpoint.reading import read, read_meta
        from training.checkpoint.restore import network_params
        print(network_params(read(sys.argv[1])[0])["w"].sum(), "jax" in sys.modules)"""
    assert python(script, tmp_path / "a") == "2 False\n"


def test_paths_of_no_file_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "none", tmp_path / "nul\0", "/dev/zero"):
        with pytest.raises(UserError, match="there is no such file"):
            read(path)


def test_a_damaged_checkpoint_names_the_newest_whole_one(tmp_path):
    for epoch in (1, 2, 9, 10):
        write(tmp_path / file_name(epoch), {"w": np.ones(3)}, {})
    for epoch in (9, 10):
        os.truncate(tmp_path / file_name(epoch), 50)
    with pytest.raises(UserError, match=r"newest whole .* is .*checkpoint-epoch_2\.params\.$"):
        read(tmp_path / file_name(10))
    for epoch in (1, 2):
        (tmp_path / file_name(epoch)).write_bytes(b"")
    with pytest.raises(UserError, match=r"\)\.$"):
        read(tmp_path / file_name(10))
    write(tmp_path / BEST, {"w": np.ones(3)}, {})
    with pytest.raises(UserError, match=r"newest whole .* is .*checkpoint-best\.params\.$"):
        read(tmp_path / file_name(10))


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
