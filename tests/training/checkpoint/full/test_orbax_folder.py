"""Runs with the checkpoints of Orbax: other numbers of devices, two processes, kills."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import test as evaluation
import train
from benchmarks.scale import Group
from tests.helpers.project import ROOT
from tests.helpers.python_process import python
from training.checkpoint.naming import BEST, file_name, latest
from training.checkpoint.reading import read
from training.common.files import UNFINISHED


@pytest.fixture(scope="session")
def folders_of_four(tmp_path_factory):
    """A run of two epochs on four devices, its state in four parts, its checkpoints Orbax's."""
    overrides = ["devices.orbax=true", "devices.shards=4", "training.optimizer.args.eps=0.001",
                 "training.monitor=min test_loss"]  # fmt: skip
    group = Group(tmp_path_factory.mktemp("orbax"), 2, 32, overrides, 1, 4)
    group.finish()
    return group


def test_a_run_of_four_devices_resumes_on_one_and_is_evaluated(
    folders_of_four, tmp_path, monkeypatch, capfd
):
    run = shutil.copytree(folders_of_four.run, tmp_path / "run")
    assert {path.name for path in tmp_path.glob("run/*.params")} == {
        BEST, file_name(1), file_name(2),
    }  # fmt: skip
    monkeypatch.chdir(folders_of_four.folder)
    first = str(run / file_name(1))
    assert train.main(["--resume", first, "devices.shards=1", "devices.orbax=false"]) == 0
    one_file, (folder,) = latest(run), run.glob(f"set-aside-*/{file_name(2)}")
    assert one_file.is_file()
    assert folder.is_dir()
    expected, _ = read(folder)
    arrays, _ = read(one_file)
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert evaluation.main(["-w", str(folder), "-c", str(run / "config.json")]) == 0
    capfd.readouterr()


def test_two_processes_resume_from_it_and_each_saves_its_parts(folders_of_four, tmp_path):
    shutil.copytree(folders_of_four.folder, tmp_path / "group")
    group = Group(tmp_path / "group", 2, 32, [], 2, 2)
    more = ["training.epochs=3"]
    for index, process in enumerate(group.start_all(own={0: more, 1: more})):
        assert process.wait(250) == 0, group.said(index)[-3000:]
    path = latest(group.run)
    assert path.name == file_name(3)
    assert path.is_dir()
    assert {part.name for part in path.glob("ocdbt.process_*")} == {
        "ocdbt.process_0", "ocdbt.process_1",
    }  # fmt: skip
    arrays, meta = read(path)
    assert arrays["step"] == 30
    assert meta["epochs"] == 3
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert not [name for name in os.listdir(group.run) if UNFINISHED.fullmatch(name)]


def test_a_misfit_and_damage_are_reported_without_a_traceback(folders_of_four, tmp_path):
    run = shutil.copytree(folders_of_four.run, tmp_path / "run")

    def resumed(*words):
        command = [sys.executable, ROOT / "train.py", "--resume", run, "devices.shards=1", *words]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=folders_of_four.folder, timeout=250
        )

    done = resumed("model.args.feat_dims=[16]")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "params/hidden0/kernel: float32 (784, 32), expected float32 (784, 16)" in done.stderr
    for file in (run / file_name(2)).glob("ocdbt.process_0/d/*"):
        os.truncate(file, file.stat().st_size // 2)
    done = resumed("training.epochs=3")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"{file_name(2)} is damaged or not a checkpoint" in done.stderr
    assert file_name(1) in done.stderr


KILLS = """if True:
    import os, random, signal, sys, time
    from pathlib import Path
    import jax, jax.numpy as jnp
    import orbax.checkpoint
    from training.checkpoint.naming import BEST, best, file_name, latest, numbered
    from training.checkpoint.saver import Saver
    from training.checkpoint.reading import read
    from training.common.files import PREVIOUS, UNFINISHED

    folder, count, chance = Path(sys.argv[1]), int(sys.argv[2]), random.Random(0)
    acknowledged = folder.with_name("acknowledged")

    def in_child(work):  # JAX has not computed anything yet, so this process may be forked
        child = os.fork()
        if child == 0:
            try:
                work()
                os._exit(0)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
        return child

    def unfinished():
        return [name for name in os.listdir(folder) if UNFINISHED.fullmatch(name)]

    def save():
        first = int(read(latest(folder))[0]["step"]) + 1 if latest(folder) else 1
        with Saver(folder, keep=2, orbax=True) as saver:
            if unfinished() or list(folder.glob("*" + PREVIOUS)):
                raise SystemExit(f"{os.listdir(folder)} stayed")
            for epoch in range(first, first + 1000):
                state = {"step": jnp.int32(epoch), "w": jnp.full((512, 1024), epoch, jnp.float32)}
                saver.save(state, {"epoch": epoch}, file_name(epoch), best=True)
                saver.wait()
                acknowledged.write_text(f"{epoch:09}")

    def check():
        text = acknowledged.read_text() if acknowledged.exists() else ""
        for path in filter(None, [*numbered(folder), best(folder)]):
            arrays, meta = read(path)
            if not (arrays["step"] == meta["epoch"] and (arrays["w"] == meta["epoch"]).all()):
                raise SystemExit(f"{path} is broken")
        for path in (latest(folder), best(folder)):
            if text and (path is None or read(path)[1]["epoch"] < int(text)):
                raise SystemExit(f"{text} is lost: {path}")
        print("during a save" if unfinished() else "between saves", text or 0, flush=True)

    for _ in range(count):
        begun, child = latest(folder), in_child(save)
        while latest(folder) == begun and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.001)  # until the first checkpoint of this child
        time.sleep(chance.uniform(0, 0.5))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if os.waitpid(in_child(check), 0)[1]:
            sys.exit(1)
"""


def test_a_kill_at_any_moment_breaks_and_loses_no_checkpoint(tmp_path):
    (tmp_path / "run").mkdir()
    printed = python(KILLS, tmp_path / "run", os.environ.get("ORBAX_KILLS", 6)).splitlines()
    print(printed)
    assert any(line.startswith("during a save") for line in printed)
