"""Orbax's checkpoints hold what the single file holds, on any number of devices."""

import os
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.project import ROOT, same_arrays
from tests.helpers.python_process import python
from training.checkpoint.naming import BEST, best, file_name, find, latest, numbered
from training.checkpoint.reading import read
from training.checkpoint.restore import restore, restore_state
from training.checkpoint.saver import Saver
from training.common.files import PREVIOUS
from training.config import ORBAX as PACKAGE
from training.config import read_config
from utils import UserError

META = {"epoch": 3, "best": float("inf"), "config": {"title": "Ünïcode \n"}}


@pytest.fixture
def state():
    params = {"stem": {"kernel": jnp.arange(2048.0).reshape(32, 64)}, "b/é c": jnp.ones(3)}
    return {"step": jnp.int32(7), "params": params, "half": jnp.full(5, 1.5, jnp.bfloat16)}


def save(folder, state, *names, keep=None, is_best=False):
    with Saver(folder, keep, orbax=True) as saver:
        for name in names:
            saver.save(state, META, name, is_best)


# ---- the folder ----


def test_a_state_comes_back_bit_for_bit(tmp_path, state, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("run", state, file_name(3))
    arrays, meta = read(find("run"))
    assert meta == META
    assert same_arrays(arrays, {
        "step": state["step"], "half": state["half"], "params/b/é c": jnp.ones(3),
        "params/stem/kernel": state["params"]["stem"]["kernel"],
    })  # fmt: skip
    assert [array.dtype for array in arrays.values()].count("bfloat16") == 1


SHARDED = """if True:
    import sys
    import jax, jax.numpy as jnp
    from training.checkpoint.saver import Saver
    from training.checkpoint.naming import file_name
    from training.config import Devices
    from training.checkpoint.reading import read
    from training.checkpoint.restore import restore_state
    from training.distributed.sharding import make_mesh, put_state, state_sharding

    mesh = make_mesh(Devices(shards=4))
    grid = jnp.arange(4096.0).reshape(16, 256)
    state = put_state({"step": jnp.int32(7), "w": {"a": grid, "b": jnp.sin(grid.T)}}, mesh)
    donated = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 1, tree), donate_argnums=0)
    with Saver(sys.argv[1]) as one_file, Saver(sys.argv[2], orbax=True) as folder:
        one_file.save(state, {}, file_name(1))
        one_file.wait()
        folder.save(state, {}, file_name(1))
        jax.block_until_ready(donated(state))
    for shards in (4, 2, 1):
        mesh = make_mesh(Devices(shards=shards))
        shapes = jax.eval_shape(lambda: {"step": jnp.int32(7), "w": {"a": grid, "b": grid.T}})
        path = folder.folder / file_name(1)
        back = restore_state(shapes, read(path, for_devices=True)[0], path, mesh)
        a = back["w"]["a"]
        print(a.sharding == state_sharding(mesh, grid.shape), bool((a == grid).all()))
"""


def test_shards_on_four_devices_equal_the_single_file_and_are_restored_in_any_layout(tmp_path):
    printed = python(SHARDED, tmp_path / "file", tmp_path / "folder", devices=4)
    assert printed == "True True\n" * 3
    one_file, folder = latest(tmp_path / "file"), latest(tmp_path / "folder")
    assert one_file.is_file()
    assert folder.is_dir()
    assert one_file.name == folder.name
    assert same_arrays(read(folder)[0], read(one_file)[0])


def test_the_latest_few_and_the_best_are_kept(tmp_path, state):
    with Saver(tmp_path, keep=2, orbax=True) as saver:
        for epoch in range(1, 5):
            saver.save(state | {"step": jnp.int32(epoch)}, META, file_name(epoch), epoch == 2)
        saver.save(state | {"step": jnp.int32(9)}, META, None, best=True)
    assert sorted(os.listdir(tmp_path)) == [BEST, file_name(3), file_name(4)]
    assert read(best(tmp_path))[0]["step"] == 9
    assert [read(path)[0]["step"] for path in numbered(tmp_path)] == [3, 4]


def test_folders_and_files_replace_each_other(tmp_path, state):
    for orbax in (False, True, False):
        with Saver(tmp_path, keep=1, orbax=orbax) as saver:
            saver.save(state, META, file_name(1), best=True)
        assert sorted(os.listdir(tmp_path)) == [BEST, file_name(1)]
        assert best(tmp_path).is_dir() == latest(tmp_path).is_dir() == orbax
        assert read(best(tmp_path))[0]["step"] == 7


def test_a_best_that_a_kill_left_half_replaced_is_found_and_renamed_back(tmp_path, state):
    save(tmp_path, state, file_name(1), is_best=True)
    os.replace(tmp_path / BEST, tmp_path / (BEST + PREVIOUS))
    assert find(tmp_path, prefer_best=True).name == BEST + PREVIOUS
    assert same_arrays(read(best(tmp_path))[0], read(latest(tmp_path))[0])
    Saver(tmp_path, orbax=True).close()
    assert sorted(os.listdir(tmp_path)) == [BEST, file_name(1)]
    shutil.copytree(tmp_path / BEST, tmp_path / (BEST + PREVIOUS))
    Saver(tmp_path).close()
    assert sorted(os.listdir(tmp_path)) == [BEST, file_name(1)]


def test_an_array_without_elements_is_refused_by_name(tmp_path, state):
    with pytest.raises(UserError, match="Orbax cannot save params/none, which has"):
        save(tmp_path, {"params": {"none": jnp.ones((0, 3))}}, file_name(1))


def test_a_failed_save_is_reported_and_the_next_one_is_tried(tmp_path, state, caplog):
    saver = Saver(tmp_path / "run", orbax=True)
    (tmp_path / "run").rmdir()
    (tmp_path / "run").touch()
    saver.save(state, META, file_name(1))
    with pytest.raises(UserError, match=r"checkpoint-epoch_1.*not saved"):
        saver.wait()
    assert "NOT SAVED" in caplog.text
    (tmp_path / "run").unlink()
    (tmp_path / "run").mkdir()
    saver.save(state, META, file_name(2))
    saver.close()
    assert read(latest(tmp_path / "run"))[0]["step"] == 7


# ---- what does not fit, is damaged, or cannot be read ----


def test_what_does_not_fit_is_listed_as_for_the_single_file(tmp_path, state):
    wanted = jax.eval_shape(lambda: state | {"step": jnp.float32(7), "more": jnp.ones(2)})
    del wanted["half"]
    wanted["params"]["stem"] = {"kernel": jax.ShapeDtypeStruct((64, 32), jnp.float32)}
    messages = []
    for orbax in (False, True):
        with Saver(tmp_path / str(orbax), orbax=orbax) as saver:
            saver.save(state, META, file_name(1))
        arrays, _ = read(latest(tmp_path / str(orbax)), for_devices=True)
        with pytest.raises(UserError) as error:
            restore(wanted, arrays, where="the checkpoint")
        messages.append(str(error.value).splitlines())
    assert sorted(messages[0]) == sorted(messages[1])
    assert "    step: int32 (), expected float32 ()" in messages[1]


def outcome(function):
    """Returns its result, or the message of the UserError that it raises."""
    try:
        return function(), ""
    except UserError as error:
        return None, str(error)


@pytest.mark.parametrize("damage", ["cut", "gone", "zeros"])
def test_a_damaged_folder_is_refused_or_gives_the_values_it_was_saved_with(tmp_path, state, damage):
    save(tmp_path, state, file_name(1), file_name(2))
    path, other = tmp_path / file_name(2), tmp_path / file_name(1)
    whole = dict(sorted(read(path)[0].items()))
    shapes, given = jax.eval_shape(lambda: state), read(path, for_devices=True)[0]
    refused = 0
    for file in [file for file in path.rglob("*") if file.is_file()]:
        content = file.read_bytes()
        if damage == "gone":
            file.unlink()
        else:
            kept = content[: len(content) // 2]
            file.write_bytes(kept if damage == "cut" else kept + bytes(len(content) - len(kept)))
        for load in (
            lambda: read(path)[0],
            lambda: restore_state(shapes, given, path, None),
        ):
            arrays, message = outcome(load)
            refused += bool(message)
            if message:
                assert "damaged or not a checkpoint" in message
                assert message.endswith(f"The newest other checkpoint beside it is {other}.")
            else:
                assert all(map(np.array_equal, jax.tree.leaves(arrays), whole.values()))
        file.write_bytes(content)
    assert refused >= 6
    assert same_arrays(read(path)[0], whole)


def test_a_folder_that_orbax_did_not_write_is_no_checkpoint(tmp_path):
    (tmp_path / file_name(1)).mkdir()
    (tmp_path / file_name(1) / "notes.txt").write_text("nothing")
    with pytest.raises(UserError, match="there is no checkpoint here"):
        find(tmp_path)
    with pytest.raises(UserError, match="there is no such file"):
        read(tmp_path / file_name(1))


def test_without_orbax_the_error_says_what_to_install(
    tmp_path, state, config, write_config, monkeypatch
):
    save(tmp_path / "run", state, file_name(1))
    path = write_config(config)
    monkeypatch.setitem(sys.modules, "orbax", None)  # as if not installed
    with pytest.raises(UserError, match=f"this needs Orbax, .*: pip install {PACKAGE}"):
        read(find(tmp_path / "run"))
    with pytest.raises(UserError, match=f"json: devices: expected Orbax .*: pip install {PACKAGE}"):
        read_config(path, ["devices.orbax=true"])
    assert read_config(path).devices.orbax is False
    assert PACKAGE in (ROOT / "requirements-dev.txt").read_text().splitlines()


# ---- whole runs ----


# ---- kills ----
