"""Checkpoints that Orbax writes: as good as the one file, on any number of devices and processes."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import test as evaluation
import train
from benchmarks.scale import Group, free_port
from tests.conftest import ROOT, same_arrays
from training.checkpoint import BEST, Saver, best, file_name, find, latest, numbered, read
from training.config import read_config
from training.files import PREVIOUS, UNFINISHED
from training.orbax_file import PACKAGE, load_state
from training.restore import restore
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


def python(script, *arguments, devices=1):
    """Returns what a Python process prints; it must succeed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


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


PARTED = """if True:
    import sys
    import jax, jax.numpy as jnp
    from training.checkpoint import Saver, file_name
    from training.config import Devices
    from training.devices import layout, make_mesh, place_state
    from training.orbax_file import load_state

    mesh = make_mesh(Devices(shards=4))
    grid = jnp.arange(4096.0).reshape(16, 256)
    state = place_state({"step": jnp.int32(7), "w": {"a": grid, "b": jnp.sin(grid.T)}}, mesh)
    donated = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 1, tree), donate_argnums=0)
    with Saver(sys.argv[1]) as one_file, Saver(sys.argv[2], orbax=True) as folder:
        one_file.save(state, {}, file_name(1))
        one_file.wait()
        folder.save(state, {}, file_name(1))
        jax.block_until_ready(donated(state))
    for shards in (4, 2, 1):
        mesh = make_mesh(Devices(shards=shards))
        shapes = jax.eval_shape(lambda: {"step": jnp.int32(7), "w": {"a": grid, "b": grid.T}})
        back = load_state(folder.folder / file_name(1), shapes, mesh)
        print(back["w"]["a"].sharding == layout(mesh, grid.shape), bool((back["w"]["a"] == grid).all()))
"""


def test_parts_on_four_devices_are_the_one_files_values_and_come_back_in_any_layout(tmp_path):
    printed = python(PARTED, tmp_path / "file", tmp_path / "folder", devices=4)
    assert printed == "True True\n" * 3
    one_file, folder = latest(tmp_path / "file"), latest(tmp_path / "folder")
    assert one_file.is_file() and folder.is_dir() and one_file.name == folder.name
    assert same_arrays(read(folder)[0], read(one_file)[0])


def test_the_latest_few_and_the_best_stay(tmp_path, state):
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


def test_a_best_that_a_kill_left_half_replaced_is_found_and_gets_its_name_back(tmp_path, state):
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
    with pytest.raises(UserError, match="devices.orbax: Orbax cannot save params/none, which has"):
        save(tmp_path, {"params": {"none": jnp.ones((0, 3))}}, file_name(1))


def test_a_disk_that_does_not_take_a_checkpoint_is_told_and_the_next_is_tried(
    tmp_path, state, caplog
):
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


def test_what_does_not_fit_is_listed_as_for_the_one_file(tmp_path, state):
    wanted = jax.eval_shape(lambda: state | {"step": jnp.float32(7), "more": jnp.ones(2)})
    del wanted["half"]
    wanted["params"]["stem"] = {"kernel": jax.ShapeDtypeStruct((64, 32), jnp.float32)}
    told = []
    for orbax in (False, True):
        with Saver(tmp_path / str(orbax), orbax=orbax) as saver:
            saver.save(state, META, file_name(1))
        arrays, _ = read(latest(tmp_path / str(orbax)), folders_whole=False)
        with pytest.raises(UserError) as error:
            restore(wanted, arrays, where="the checkpoint")
        told.append(str(error.value).splitlines())
    assert sorted(told[0]) == sorted(told[1])
    assert "    step: int32 (), expected float32 ()" in told[1]


@pytest.mark.parametrize("damage", ["cut", "gone", "zeros"])
def test_a_damaged_folder_is_refused_or_gives_the_values_it_was_saved_with(tmp_path, state, damage):
    save(tmp_path, state, file_name(1), file_name(2))
    path, other = tmp_path / file_name(2), tmp_path / file_name(1)
    whole = dict(sorted(read(path)[0].items()))
    refused = 0
    for file in [file for file in path.rglob("*") if file.is_file()]:
        content = file.read_bytes()
        if damage == "gone":
            file.unlink()
        else:
            kept = content[: len(content) // 2]
            file.write_bytes(kept if damage == "cut" else kept + bytes(len(content) - len(kept)))
        shapes = jax.eval_shape(lambda: state)
        for attempt in (
            lambda: read(path)[0],
            lambda shapes=shapes: load_state(path, shapes, None),
        ):
            try:
                arrays = attempt()
            except UserError as error:
                refused += 1
                assert "damaged or not a checkpoint" in str(error)
                assert f"The newest other checkpoint beside it is {other}." in str(error)
            else:
                assert all(map(np.array_equal, jax.tree.leaves(arrays), whole.values()))
        file.write_bytes(content)
    assert refused >= 6
    assert same_arrays(read(path)[0], whole)


def test_a_folder_that_orbax_did_not_write_is_refused(tmp_path):
    (tmp_path / file_name(1)).mkdir()
    (tmp_path / file_name(1) / "notes.txt").write_text("nothing")
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        read(find(tmp_path))


def test_without_orbax_the_error_says_what_to_install(
    tmp_path, state, config, write_config, monkeypatch
):
    save(tmp_path / "run", state, file_name(1))
    path = write_config(config)
    monkeypatch.setitem(sys.modules, "orbax", None)  # Python's own way to say it is not there
    with pytest.raises(UserError, match=f"this needs Orbax, .*: pip install {PACKAGE}"):
        read(find(tmp_path / "run"))
    with pytest.raises(UserError, match=f"json: devices: expected Orbax .*: pip install {PACKAGE}"):
        read_config(path, ["devices.orbax=true"])
    assert read_config(path).devices.orbax is False
    assert PACKAGE in (ROOT / "requirements-dev.txt").read_text().splitlines()


# ---- kills ----

KILLS = """if True:
    import os, random, signal, sys, time
    import jax, jax.numpy as jnp, numpy as np
    import orbax.checkpoint
    from training.checkpoint import Saver, best, file_name, numbered, read
    from training.files import PREVIOUS, UNFINISHED

    folder, count, chance = sys.argv[1], int(sys.argv[2]), random.Random(0)

    def in_child(work):  # JAX has not started yet, so it may be forked
        child = os.fork()
        if child == 0:
            try:
                work()
                os._exit(0)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
        return child

    def train():
        there = numbered(folder)
        last = int(read(there[-1])[0]["step"]) if there else 0
        with Saver(folder, keep=2, orbax=True) as saver:
            left = [one for one in os.listdir(folder) if UNFINISHED.fullmatch(one) or PREVIOUS in one]
            assert not left, left
            for epoch in range(last + 1, last + 1000):
                state = {"step": jnp.int32(epoch), "w": jnp.full((512, 1024), epoch, jnp.float32)}
                saver.save(state, {"epoch": epoch}, file_name(epoch), best=epoch % 2 == 0)
                saver.wait()
                open(os.path.join(folder, "..", "acknowledged"), "w").write(str(epoch))

    def look():
        there = numbered(folder)
        text = open(os.path.join(folder, "..", "acknowledged")).read()
        for path in [*there, *filter(None, [best(folder)])]:
            arrays, meta = read(path)
            assert arrays["step"] == meta["epoch"] and (arrays["w"] == meta["epoch"]).all(), path
        if text:
            assert meta["epoch"] >= int(text) // 2 * 2, "the best acknowledged is lost"
            assert int(read(there[-1])[0]["step"]) >= int(text), "one acknowledged is lost"
        halves = [one for one in os.listdir(folder) if UNFINISHED.fullmatch(one)]
        print("halves" if halves else "none", flush=True)

    for _ in range(count):
        begun = set(os.listdir(folder))
        child = in_child(train)
        while set(os.listdir(folder)) <= begun:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.8))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(os.waitpid(in_child(look), 0)[1]) == 0
"""
