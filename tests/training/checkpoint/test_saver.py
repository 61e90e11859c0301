"""Checkpoints are saved in the background, and survive kills and full disks."""

import os
import tempfile
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.checkpoints import META, same_trees
from tests.helpers.project import examples
from tests.helpers.python_process import python
from training.checkpoint import saver as saver_module
from training.checkpoint import single_file
from training.checkpoint.naming import BEST, best, file_name, latest, numbered
from training.checkpoint.reading import read
from training.checkpoint.restore import restore
from training.checkpoint.saver import Saver
from training.checkpoint.single_file import write
from training.common.files import hard_link
from utils import UserError


def block(saver):
    """Keeps the saver's thread busy until the event that it returns is set."""
    event = threading.Event()
    saver._worker.submit(event.wait, 60)
    return event


def test_save_returns_before_the_file_is_written(tmp_path):
    with Saver(tmp_path, keep=1) as saver:
        event = block(saver)
        saver.save({"w": np.ones(3)}, {}, file_name(1))
        assert os.listdir(tmp_path) == []
        assert saver.failure is None
        event.set()
    assert os.listdir(tmp_path) == [file_name(1)]


EVENTS = st.lists(
    st.tuples(st.integers(1, 12), st.none() | st.integers(1, 5)), unique=True, max_size=12
)


def in_order(event):
    return event[0], 99 if event[1] is None else event[1]


@examples(25)
@given(EVENTS, st.integers(1, 4), st.data())
def test_the_last_few_checkpoints_and_the_best_are_kept(tmp_path_factory, events, keep, data):
    folder = tmp_path_factory.mktemp("run")
    expected_best = None
    with Saver(folder, keep) as saver:
        for count, event in enumerate(sorted(events, key=in_order), 1):
            due, better = data.draw(st.booleans(), "due"), data.draw(st.booleans(), "better")
            saver.save({"n": np.int64(count)}, {"event": event}, file_name(*event), better)
            expected_best = event if better else expected_best
            if due:
                saver.save({"n": np.int64(count)}, {"event": event}, None, best=True)
                expected_best = event
    kept = sorted(events, key=in_order)[-keep:]
    assert [path.name for path in numbered(folder)] == [file_name(*event) for event in kept]
    assert [read(path)[1]["event"] for path in numbered(folder)] == [list(event) for event in kept]
    assert (best(folder) is not None) == (expected_best is not None)
    if expected_best:
        assert read(best(folder))[1]["event"] == list(expected_best)
    assert len(os.listdir(folder)) == len(kept) + (expected_best is not None)


@examples(25)
@given(EVENTS, st.integers(1, 4))
def test_in_any_order_the_newly_saved_is_kept_and_no_more_than_asked(
    tmp_path_factory, events, keep
):
    folder = tmp_path_factory.mktemp("run")
    with Saver(folder, keep) as saver:
        for count, event in enumerate(events, 1):
            saver.save({"n": np.int64(count)}, {}, file_name(*event))
            saver.wait()
            kept = {path.name for path in numbered(folder)}
            assert file_name(*event) in kept
            assert len(kept) == min(count, keep)
            if keep > 1:
                assert file_name(*max(events[:count], key=in_order)) in kept


def test_all_checkpoints_are_kept_if_no_number_is_given(tmp_path):
    with Saver(tmp_path) as saver:
        for epoch in range(1, 13):
            saver.save({"n": np.int64(epoch)}, {}, file_name(epoch))
    assert len(numbered(tmp_path)) == 12


def test_files_of_other_names_are_never_touched(tmp_path):
    names = ["mine.params", "checkpoint-epoch_1.params.bak", "checkpoint-epoch_x.params", "a.tmp"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "checkpoint-epoch_1.params").mkdir()
    for name in ("checkpoint-epoch_4.params.0a1b2c3d.tmp", "checkpoint-best.params.00000000.tmp"):
        (tmp_path / name).touch()
    with Saver(tmp_path, keep=1) as saver:
        for epoch in (2, 3):
            saver.save({"n": np.int64(1)}, {}, file_name(epoch))
    expected = {*names, "checkpoint-epoch_1.params", "checkpoint-epoch_3.params"}
    assert set(os.listdir(tmp_path)) == expected


def test_nothing_is_saved_or_deleted_when_nothing_is_due(tmp_path, state):
    with Saver(tmp_path / "new" / "run", keep=1) as saver:
        saver.save(state, META, None)
    assert os.listdir(tmp_path / "new" / "run") == []


def test_a_best_of_the_same_moment_takes_no_room_of_its_own_and_outlives_the_numbered(
    tmp_path, state
):
    with Saver(tmp_path, keep=1) as saver:
        saver.save(state, META, file_name(3), best=True)
        saver.wait()
        assert os.path.samefile(tmp_path / file_name(3), tmp_path / BEST)
        saver.save({"n": np.int64(4)}, {}, file_name(4))  # file_name(3) is deleted
        saver.wait()
        arrays, meta = read(tmp_path / BEST)
        assert meta == META
        assert same_trees(restore(state, arrays), state)
        saver.save({"n": np.int64(4)}, {}, file_name(4), best=True)
        saver.save({"n": np.int64(5)}, {}, None, best=True)  # the numbered one keeps its content
    assert [read(tmp_path / name)[0]["n"] for name in (file_name(4), BEST)] == [4, 5]
    assert sorted(os.listdir(tmp_path)) == [BEST, file_name(4)]


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
def test_where_no_link_can_be_made_none_is_and_nothing_is_left_behind(tmp_path):
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as other:
        if os.stat(other.name).st_dev == os.stat(tmp_path).st_dev:
            pytest.skip("one file system")
        assert not hard_link(other.name, tmp_path / BEST)
    assert os.listdir(tmp_path) == []


def test_old_checkpoints_are_kept_until_the_new_one_is_in_place(tmp_path):
    (tmp_path / file_name(2)).mkdir()  # the new one cannot take its place
    saver = Saver(tmp_path, keep=1)
    saver.save({"n": np.int64(1)}, {}, file_name(1))
    saver.save({"n": np.int64(2)}, {}, file_name(2))
    with pytest.raises(UserError, match=r"checkpoint-epoch_2\.params: Is a directory"):
        saver.close()
    assert sorted(os.listdir(tmp_path)) == [file_name(1), file_name(2)]
    assert read(tmp_path / file_name(1))[0]["n"] == 1


def test_a_failed_save_is_reported_and_the_next_one_saves_the_best_too(tmp_path, caplog):
    folder = tmp_path / "run"
    with Saver(folder) as saver:
        folder.rmdir()
        saver.save({"n": np.int64(1)}, {}, file_name(1), best=True)
        with pytest.raises(UserError, match="No such file or directory"):
            saver.wait()
        assert "NOT SAVED" in caplog.text
        saver.save({"n": np.int64(2)}, {}, file_name(2))
        with pytest.raises(UserError, match="No such file or directory"):
            saver.wait()
        folder.mkdir()
        saver.save({"n": np.int64(3)}, {}, file_name(3))
        saver.wait()
        assert saver.failure is None
    assert sorted(os.listdir(folder)) == [BEST, file_name(3)]
    assert read(folder / BEST)[0]["n"] == 1
    assert read(folder / file_name(3))[0]["n"] == 3


def test_a_checkpoint_that_is_removed_meanwhile_is_reported(tmp_path, caplog):
    with Saver(tmp_path, keep=3) as saver:
        saver.save({"w": np.ones(3)}, {}, file_name(1), best=True)
        saver.wait()
        (tmp_path / file_name(1)).unlink()
        saver.save({"w": np.ones(3)}, {}, file_name(2))
        saver.wait()
    assert [one.message for one in caplog.records] == [
        f"{tmp_path / file_name(1)}: another program removed it. Training continues without it"
    ]
    assert latest(tmp_path).name == file_name(2)


def test_the_best_is_written_before_the_numbered_one_that_refers_to_it(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(single_file, "atomic_write", lambda path, *_: written.append(path.name))
    with Saver(tmp_path) as saver:
        saver.save({"n": np.int64(1)}, {}, file_name(1), best=True)
    assert written == [BEST, file_name(1)]


def test_a_better_one_replaces_the_best_that_was_not_saved(tmp_path):
    folder = tmp_path / "run"
    with Saver(folder) as saver:
        folder.rmdir()
        saver.save({"n": np.int64(1)}, {}, None, best=True)
        saver._wait_for_pending()
        folder.mkdir()
        saver.save({"n": np.int64(2)}, {}, None, best=True)
    assert read(folder / BEST)[0]["n"] == 2


def test_training_that_waits_for_a_slow_disk_says_so(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(saver_module, "PATIENCE", 0.01)
    with Saver(tmp_path) as saver:
        event = block(saver)
        threading.Timer(0.2, event.set).start()
        saver.save({"n": np.int64(1)}, {}, file_name(1))
        saver.wait()
    assert f"Training waits for the last checkpoint: {tmp_path} is slow" in caplog.text
    assert read(tmp_path / file_name(1))[0]["n"] == 1


def interrupt():
    raise KeyboardInterrupt


def test_leaving_the_block_raises_the_failure_but_hides_no_other_error(tmp_path, caplog):
    bad = {"x": np.ones(2, np.complex128)}
    with (
        pytest.raises(UserError, match="not saved: x has dtype complex128"),
        Saver(tmp_path) as saver,
    ):
        saver.save(bad, {}, file_name(1))
    assert not caplog.records
    with pytest.raises(KeyboardInterrupt), Saver(tmp_path) as saver:
        saver.save(bad, {}, file_name(1)) or interrupt()
    assert "not saved: x has dtype complex128" in caplog.text


def test_at_least_one_checkpoint_is_kept(tmp_path):
    with pytest.raises(UserError, match="expected at least 1, or null for all; got 0"):
        Saver(tmp_path, keep=0)


def test_donated_arrays_are_saved_as_they_were(tmp_path):
    @jax.jit
    def make(value):
        return {"large": jnp.full((1000, 1000), value), "small": jnp.full((3,), value)}

    update = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = make(0.0)
    with Saver(tmp_path) as saver:
        for epoch in range(20):
            saver.wait()
            event = block(saver)
            saver.save(state, {}, file_name(epoch))
            for _ in range(3):
                given, state = state, jax.block_until_ready(update(state))
            assert given["large"].is_deleted(), "nothing was donated: the test would show nothing"
            event.set()
    for epoch in range(20):
        for array in read(tmp_path / file_name(epoch))[0].values():
            assert np.all(array == 3 * epoch)


def test_numpy_arrays_and_meta_may_change_after_save(tmp_path):
    array, meta = np.zeros(10), {"sums": {"loss": 1.0}}
    with Saver(tmp_path) as saver:
        event = block(saver)
        saver.save({"a": array}, meta, file_name(1))
        array += 1
        meta["sums"]["loss"] = 2.0
        event.set()
    arrays, saved = read(tmp_path / file_name(1))
    assert not arrays["a"].any()
    assert saved == {"sums": {"loss": 1.0}}


# ---- kills, full disks, forbidden places ----


FULL_DISK = """if True:
    import os, resource, sys
    import numpy as np
    from training.checkpoint.saver import Saver
    from training.checkpoint.naming import file_name
    from training.checkpoint.reading import read
    from utils import UserError

    folder = sys.argv[1]
    saver = Saver(folder, keep=1)
    state = {"w": np.ones(100_000)}
    saver.save(state, {}, file_name(1), best=True)
    saver.wait()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limit[1]))
    saver.save(state, {}, file_name(2), best=True)
    try:
        saver.wait()
    except UserError as error:
        print(error)
    print(sorted(os.listdir(folder)), all(len(read(f"{folder}/{f}")) for f in os.listdir(folder)))
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    saver.save(state, {}, file_name(2))
    saver.close()
    print(sorted(os.listdir(folder)))
"""


def test_a_full_disk_is_reported_keeps_the_old_files_and_saving_continues_once_it_has_space(
    tmp_path,
):
    message, before, after = python(FULL_DISK, tmp_path).splitlines()
    assert message.startswith(f"{tmp_path}/checkpoint-best.params: File too large: make room there")
    assert before == "['checkpoint-best.params', 'checkpoint-epoch_1.params'] True"
    assert after == "['checkpoint-best.params', 'checkpoint-epoch_2.params']"


FORBIDDEN = """if True:
    import os, sys
    import jax, numpy as np
    from training.checkpoint.single_file import write
    from utils import UserError

    os.chdir(sys.argv[1])
    write("a", {"w": np.ones(3)}, {})
    os.chmod(".", 0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        write("a", {"w": np.zeros(3)}, {})
    except UserError as error:
        print(error)
"""


def test_a_read_only_folder_is_reported_and_unchanged(tmp_path):
    message = python(FORBIDDEN, tmp_path)
    os.chmod(tmp_path, 0o755)
    assert message == (
        "a: Permission denied: check that it may be read and written, or choose another folder.\n"
    )
    assert os.listdir(tmp_path) == ["a"]
    assert read(tmp_path / "a")[0]["w"].tolist() == [1, 1, 1]


def test_impossible_paths_are_reported_and_leave_no_files(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    places = {
        "file/a": "Not a directory",
        "gone/a": "No such file or directory",
        "folder": "Is a directory",
        "n" * 300: "File name too long",
    }
    for place, words in places.items():
        with pytest.raises(UserError, match=f"{place}: {words}: check that it may be"):
            write(tmp_path / place, {"w": np.ones(3)}, {})
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    with pytest.raises(UserError, match="file"):
        Saver(tmp_path / "file")
