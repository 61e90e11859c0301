"""Checkpoints come back bit for bit, survive kills and full disks, and are refused when damaged."""

import json
import os
import pickle
import stat
import subprocess
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.flax
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.project import ROOT
from training.checkpoint import single_file
from training.checkpoint.naming import (
    BEST,
    best,
    file_name,
    find,
    latest,
    numbered,
    set_aside_after,
)
from training.checkpoint.reading import read
from training.checkpoint.restore import network_params, restore
from training.checkpoint.saver import Saver
from training.checkpoint.single_file import write
from utils import UserError

META = {"epoch": 3, "batch": None, "best": float("inf"), "config": {"title": "Ünïcode \n"}}


class State(NamedTuple):
    step: object
    params: dict
    optimizers: tuple


@pytest.fixture
def state():
    params = {
        "stem": {"kernel": jnp.arange(12.0).reshape(3, 4)},
        "stage1": {"norm": {"scale": jnp.ones(4)}, "stats": {"mean": jnp.zeros(4, jnp.bfloat16)}},
    }
    return State(jnp.int32(7), params, ({"mu": params, "count": jnp.int32(7)}, ()))


def same(left, right):
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and (np.asarray(left).tobytes() == np.asarray(right).tobytes())
    )


def same_trees(left, right):
    return jax.tree.structure(left) == jax.tree.structure(right) and all(
        map(same, jax.tree.leaves(left), jax.tree.leaves(right))
    )


def random_array(dtype, shape, seed):
    """An array of random bits: NaNs, infinities and subnormal numbers among them."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=int))
    data = np.frombuffer(np.random.default_rng(seed).bytes(count * dtype.itemsize), np.uint8)
    return (data % 2 if dtype.kind == "b" else data).view(dtype).reshape(shape)


ARRAYS = st.builds(
    random_array,
    st.sampled_from([*single_file.DTYPES.values()]),
    st.lists(st.integers(0, 4), max_size=4).map(tuple),
    st.integers(0, 2**32),
)
TREES = st.dictionaries(st.text('abc é"/\\', max_size=5), ARRAYS, max_size=6)


# ---- the file ----


@settings(max_examples=100, deadline=None)
@given(TREES)
def test_arrays_of_every_dtype_and_shape_come_back_bit_for_bit(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "round_trip.params"
    write(path, tree, META)
    arrays, meta = read(path)
    assert meta == META
    assert arrays.keys() == tree.keys()
    assert all(same(arrays[name], tree[name]) for name in tree)
    assert all(array.flags.aligned for array in arrays.values())


@settings(max_examples=100, deadline=None)
@given(TREES)
def test_the_safetensors_library_reads_the_same_bytes_aligned(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "library.params"
    write(path, tree, META)
    content = path.read_bytes()
    entries = dict(safetensors.deserialize(content))
    assert entries.keys() == tree.keys()
    for name, array in tree.items():
        assert bytes(entries[name]["data"]) == array.tobytes()
        assert tuple(entries[name]["shape"]) == array.shape
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    for name, array in tree.items():
        assert (8 + length + header[name]["data_offsets"][0]) % array.itemsize == 0


def test_the_safetensors_library_gives_the_values_and_the_meta(tmp_path):
    values = np.array([1.5, 2, 3.25, 0])
    names = ["float64", "float32", "float16", "int8", "int32", "uint8", "bool", "bfloat16"]
    write(tmp_path / "a", {name: jnp.asarray(values).astype(name) for name in names[1:]}, META)
    loaded = safetensors.flax.load_file(tmp_path / "a")
    assert loaded.keys() == set(names[1:])
    for name, array in loaded.items():
        expected = values.astype(jnp.dtype(name))
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
    with safetensors.safe_open(tmp_path / "a", "np") as file:
        assert json.loads(file.metadata()["meta"]) == META


def test_a_file_that_the_library_copied_is_still_a_checkpoint(tmp_path):
    tree = {"z": np.arange(3.0), "a": np.ones((2, 2), np.float32), "m": np.array(True)}
    write(tmp_path / "ours", tree, META)
    with safetensors.safe_open(tmp_path / "ours", "np") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in tree}, file.metadata()
    safetensors.numpy.save_file(tensors, tmp_path / "copy", metadata)
    arrays, meta = read(tmp_path / "copy")
    assert meta == META
    assert all(same(arrays[name], tree[name]) for name in tree)


@pytest.mark.parametrize("change", ["value", "dtype", "shape", "name", "more", "fewer"])
def test_a_copy_with_anything_changed_is_refused(tmp_path, change):
    tree = {"a": np.ones((2, 3), np.float32), "b": np.zeros(2, np.int32)}
    write(tmp_path / "ours", tree, META)
    with safetensors.safe_open(tmp_path / "ours", "np") as file:
        metadata = file.metadata()
    a = tree["a"]
    changed = {
        "value": tree | {"a": a + 1},
        "dtype": tree | {"a": a.view(np.int32)},
        "shape": tree | {"a": a.reshape(3, 2)},
        "name": {"c": a, "b": tree["b"]},
        "more": tree | {"c": a},
        "fewer": {"a": a},
    }
    safetensors.numpy.save_file(changed[change], tmp_path / "copy", metadata)
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        read(tmp_path / "copy")


def test_arrays_in_any_memory_order_come_back_as_they_look(tmp_path):
    grid = np.arange(24.0).reshape(2, 3, 4)
    tree = {"turned": grid.T, "fortran": np.asfortranarray(grid), "strided": grid[:, ::2, ::-1]}
    write(tmp_path / "a", tree, {})
    arrays, _ = read(tmp_path / "a")
    assert all(np.array_equal(arrays[name], tree[name]) for name in tree)


def test_leaves_are_named_by_their_path(tmp_path, state):
    write(tmp_path / "a", state._replace(params={"stem": {"kernel": jnp.ones(2)}}), {})
    assert set(read(tmp_path / "a")[0]) == {
        "step",
        "params/stem/kernel",
        "optimizers/0/count",
        "optimizers/0/mu/stem/kernel",
        "optimizers/0/mu/stage1/norm/scale",
        "optimizers/0/mu/stage1/stats/mean",
    }


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (np.ones(2, np.complex128), "state/x has dtype complex128, expected one of BOOL, U8"),
        (np.ones(2, ">f4"), "state/x has dtype >f4"),
        (np.array(["text"]), "state/x has dtype <U4"),
        (jnp.ones(2, jnp.int4), "state/x has dtype int4"),
        (jax.random.key(0), "state/x is a typed key, keep jax.random.key_data"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_by_name(tmp_path, leaf, words):
    with pytest.raises(ValueError, match=words):
        write(tmp_path / "a", {"state": {"x": leaf}}, {})
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("tree", [{"a/b": 1, "a": {"b": 2}}, {"__metadata__": 1}])
def test_a_name_that_is_taken_is_refused(tmp_path, tree):
    with pytest.raises(ValueError, match="the name is taken"):
        write(tmp_path / "a", tree, {})


def test_a_header_longer_than_may_be_read_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="names and meta take"):
        write(tmp_path / "a", {}, {"notes": "x" * single_file.HEADER_LIMIT})


def test_checkpoints_are_read_without_jax(tmp_path):
    write(tmp_path / "a", {"params": {"w": jnp.ones(2, jnp.bfloat16)}}, META)
    script = """if True:
        import sys
        from training.checkpoint.reading import read
        from training.checkpoint.restore import network_params
        print(network_params(read(sys.argv[1])[0])["w"].sum(), "jax" in sys.modules)"""
    assert run(script, tmp_path / "a") == "2 False\n"


# ---- damage ----


def test_a_flip_of_any_single_bit_is_refused(tmp_path):
    path = tmp_path / "a"
    write(path, {"w": np.arange(6, dtype=np.float32), "n": np.int32(1), "z": np.ones((0, 3))}, META)
    content = path.read_bytes()
    refused = 0
    with open(path, "r+b", buffering=0) as file:
        for at, byte in enumerate(content):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), at)
                with pytest.raises(UserError, match="damaged or not a checkpoint"):
                    read(path)
                refused += 1
            os.pwrite(file.fileno(), bytes([byte]), at)
    assert refused == 8 * len(content) > 3000
    assert read(path)[1] == META


def test_every_truncation_and_every_tail_is_refused(tmp_path):
    path = tmp_path / "a"
    write(path, {"w": np.arange(6, dtype=np.float32), "n": np.int32(1)}, META)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="damaged or not a checkpoint"):
            read(path)
    for tail in (b"\0", b"\n", b" " * 8, content):
        path.write_bytes(content + tail)
        with pytest.raises(UserError, match="damaged or not a checkpoint"):
            read(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_overwritten_and_lost_stretches_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "stretches.params"
    write(path, {"w": np.arange(50.0), "b": np.ones(3, np.int8)}, META)
    content = path.read_bytes()
    begin = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(begin, len(content)))
    path.write_bytes(content[:begin] + data.draw(st.binary(max_size=60)) + content[end:])
    if path.read_bytes() != content:
        with pytest.raises(UserError, match="damaged or not a checkpoint"):
            read(path)


def header_of(entries, data):
    """A header with the right checksums of whatever it claims."""
    sums = {
        name: zlib.crc32(data, zlib.crc32(json.dumps([name, e["dtype"], e["shape"]]).encode()))
        for name, e in entries.items()
    }
    words = ["{}", json.dumps(sums)]
    checksum = str(zlib.crc32(json.dumps(words).encode()))
    metadata = {"meta": words[0], "checksums": words[1], "checksum": checksum}
    return json.dumps({"__metadata__": metadata, **entries})


def with_header(header, data=b""):
    """A file with this header: its entries, its text or its bytes."""
    header = header_of(header, data) if isinstance(header, dict) else header
    header = header if isinstance(header, bytes) else header.encode()
    return len(header).to_bytes(8, "little") + header + data


def entry(shape, begin, end, dtype="U8"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_the_checksums_are_the_documented_ones(tmp_path):
    (tmp_path / "a").write_bytes(with_header({"a": entry([2, 2], 0, 4)}, b"\1\2\3\4"))
    arrays, meta = read(tmp_path / "a")
    assert arrays["a"].tolist() == [[1, 2], [3, 4]]
    assert meta == {}


HOSTILE = {
    "empty": b"",
    "text": b"step,loss\n1,2.0\n" * 100,
    "pickle": pickle.dumps({"params": np.ones(100)}),
    "zeros": bytes(10_000),
    "ones": b"\xff" * 10_000,
    "no metadata": safetensors.numpy.save({"a": np.ones(3)}),
    "other metadata": safetensors.numpy.save({"a": np.ones(3)}, {"format": "pt"}),
    "endless header": (2**63).to_bytes(8, "little") + b"{}",
    "longest header": (2**64 - 1).to_bytes(8, "little") + b"{}",
    "header of the file's length": (10).to_bytes(8, "little") + b"{}",
    "no header": bytes(8),
    "deep list": with_header("[" * 100_000),
    "deep object": with_header('{"a":' * 50_000),
    "closed deep list": with_header("[" * 50_000 + "]" * 50_000),
    "not text": with_header(b"\xff\xfe{}"),
    "sixteen-bit text": with_header(
        header_of({"a": entry([4], 0, 4)}, b"1234").encode("utf-16"), b"1234"
    ),
    "list": with_header("[]"),
    "number": with_header("1"),
    "long number": with_header("1" * 100_000),
    "null metadata": with_header('{"__metadata__": null}'),
    "metadata of numbers": with_header(
        json.dumps(
            {"__metadata__": {"meta": 1, "checksums": 2, "checksum": str(zlib.crc32(b"[1, 2]"))}}
        )
    ),
    "same name twice": with_header(
        header_of({"a": entry([4], 0, 4)}, b"1234").replace('"a": {', '"a": 0, "a": {', 1), b"1234"
    ),
    "terabytes": with_header({"a": entry([2**40], 0, 2**40)}, b"1234"),
    "more than there is": with_header({"a": entry([5], 0, 5)}, b"1234"),
    "overflow to nothing": with_header({"a": entry([2**32, 2**32], 0, 0)}),
    "endless shape": with_header({"a": entry([1] * 100_000, 0, 1)}, b"1"),
    "endless product": with_header({"a": entry([2**62] * 60, 0, 4)}, b"1234"),
    "huge dimension": with_header({"a": entry([10**4000, 0], 0, 0)}),
    "impossible dimension": with_header({"a": entry([2**62, 2**62, 0], 0, 0)}),
    "negative dimensions": with_header({"a": entry([-2, -2], 0, 4)}, b"1234"),
    "fraction of a dimension": with_header({"a": entry([4.0], 0, 4)}, b"1234"),
    "words for dimensions": with_header({"a": entry("four", 0, 4)}, b"1234"),
    "no shape": with_header({"a": entry(None, 0, 4)}, b"1234"),
    "overlap": with_header({"a": entry([4], 0, 4), "b": entry([4], 0, 4)}, b"1234"),
    "half overlap": with_header({"a": entry([4], 0, 4), "b": entry([4], 2, 6)}, b"123456"),
    "hole": with_header({"a": entry([2], 0, 2), "b": entry([2], 4, 6)}, b"123456"),
    "backwards": with_header({"a": entry([4], 4, 0)}, b"1234"),
    "before the start": with_header({"a": entry([4], -4, 0)}, b"1234"),
    "one offset": with_header({"a": entry([4], 0, 4) | {"data_offsets": [0]}}, b"1234"),
    "offset of words": with_header({"a": entry([4], "0", "4")}, b"1234"),
    "offsets of all kinds": with_header({"a": entry([0], 0, 0), "b": entry([0], "0", None)}),
    "unknown dtype": with_header({"a": entry([1], 0, 4, "F4")}, b"1234"),
    "dtype of lists": with_header({"a": entry([1], 0, 4, ["F32"])}, b"1234"),
    "ragged end": with_header({"a": entry([2], 0, 2)}, b"1234"),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_refused_in_little_memory(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UserError, match="damaged or not a checkpoint") as error:
        read(tmp_path / "a")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000
    assert len(str(error.value)) < 500


def test_a_header_of_gigabytes_is_not_read(tmp_path):
    with open(tmp_path / "a", "wb") as file:
        file.write((2**33).to_bytes(8, "little"))
        file.truncate(2**34)  # a sparse file: takes no room
    with pytest.raises(UserError, match="its header is cut off or too long"):
        read(tmp_path / "a")


def test_what_is_no_file_is_refused(tmp_path):
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


# ---- kills, full disks, forbidden places ----


def run(script, *arguments):
    """Returns what a Python process prints; it must succeed."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


KILLS = """if True:
    import os, random, signal, sys, time
    from pathlib import Path
    import jax, numpy as np
    from training.checkpoint.saver import Saver
    from training.checkpoint.naming import best, file_name, numbered
    from training.checkpoint.reading import read

    KILLS, folder, random = 40, Path(sys.argv[1]), random.Random(0)

    def save_for_ever(pipe):
        first = max((read(path)[1]["epoch"] for path in numbered(folder)), default=0) + 1
        with Saver(folder, keep=2) as saver:
            assert not list(folder.glob("*.tmp"))
            for epoch in range(first, 10**9):
                state = {"a": np.full(200_000, epoch), "b": np.full(200_000, epoch)}
                saver.save(state, {"epoch": epoch}, file_name(epoch), best=epoch % 2 == 0)
                saver.wait()
                os.write(pipe, b"%d\\n" % epoch)

    half_written = best_acknowledged = 0
    for kill in range(KILLS):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            save_for_ever(writer)
        os.close(writer)
        with open(reader) as acknowledgements:
            lines = [acknowledgements.readline()]
            time.sleep(random.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            lines += [line for line in acknowledgements if line.endswith("\\n")]
            acknowledged = int(lines[-1])
            evens = [int(line) for line in lines if int(line) % 2 == 0]
            best_acknowledged = evens[-1] if evens else best_acknowledged
        half_written += len(list(folder.glob("*.tmp")))
        epochs = []
        for path in [*numbered(folder), best(folder)]:
            if path is not None:
                arrays, meta = read(path)
                epochs.append(meta["epoch"])
                assert all(np.all(array == epochs[-1]) for array in arrays.values())
                assert path.name in (file_name(epochs[-1]), "checkpoint-best.params")
        assert acknowledged in epochs, (acknowledged, epochs)
        if best_acknowledged:
            assert read(best(folder))[1]["epoch"] >= best_acknowledged
        assert len(epochs) <= 4
    Saver(folder).close()
    print(kill + 1, half_written > 0, acknowledged >= KILLS, len(list(folder.glob("*.tmp"))))
"""


def test_kill_minus_nine_breaks_no_checkpoint_and_loses_none_that_was_acknowledged(tmp_path):
    assert run(KILLS, tmp_path) == "40 True True 0\n"


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


def test_a_full_disk_is_told_and_leaves_the_old_files_and_saving_goes_on_once_there_is_room(
    tmp_path,
):
    told, before, after = run(FULL_DISK, tmp_path).splitlines()
    assert told.startswith(f"{tmp_path}/checkpoint-best.params: File too large: make room there")
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


def test_a_folder_that_may_not_be_written_is_told_and_left_alone(tmp_path):
    told = run(FORBIDDEN, tmp_path)
    os.chmod(tmp_path, 0o755)
    assert told == (
        "a: Permission denied: check that it may be read and written, or choose another folder.\n"
    )
    assert os.listdir(tmp_path) == ["a"]
    assert read(tmp_path / "a")[0]["w"].tolist() == [1, 1, 1]


def test_impossible_places_are_told_and_nothing_is_left_behind(tmp_path):
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


# ---- the saver ----


def lock(saver):
    """Keeps the saver's thread busy until the event that it returns is set."""
    event = threading.Event()
    saver._worker.submit(event.wait, 60)
    return event


def test_save_returns_before_the_file_is_written(tmp_path):
    with Saver(tmp_path, keep=1) as saver:
        go_on = lock(saver)
        saver.save({"w": np.ones(3)}, {}, file_name(1))
        assert os.listdir(tmp_path) == []
        assert saver.failure is None
        go_on.set()
    assert os.listdir(tmp_path) == [file_name(1)]


def test_a_file_is_named_once_its_bytes_are_on_disk_and_then_its_folder_is_forced_too(
    tmp_path, monkeypatch
):
    forced, fsync = [], os.fsync

    def watched(descriptor):
        fsync(descriptor)
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        forced.append((kind, [Path(name).suffix for name in os.listdir(tmp_path)]))

    monkeypatch.setattr(os, "fsync", watched)
    write(tmp_path / file_name(1), {"w": np.ones(3)}, {})
    assert forced == [("file", [".tmp"]), ("folder", [".params"])]


EVENTS = st.lists(
    st.tuples(st.integers(1, 12), st.none() | st.integers(1, 5)), unique=True, max_size=12
)


def in_order(event):
    return event[0], 99 if event[1] is None else event[1]


@settings(max_examples=25, deadline=None)
@given(EVENTS, st.integers(1, 4), st.data())
def test_the_last_few_checkpoints_and_the_best_stay(tmp_path_factory, events, keep, data):
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


@settings(max_examples=25, deadline=None)
@given(EVENTS, st.integers(1, 4))
def test_whatever_the_order_the_newly_saved_stays_and_no_more_than_asked(
    tmp_path_factory, events, keep
):
    folder = tmp_path_factory.mktemp("run")
    with Saver(folder, keep) as saver:
        for count, event in enumerate(events, 1):
            saver.save({"n": np.int64(count)}, {}, file_name(*event))
            saver.wait()
            there = {path.name for path in numbered(folder)}
            assert file_name(*event) in there
            assert len(there) == min(count, keep)
            if keep > 1:
                assert file_name(*max(events[:count], key=in_order)) in there


def test_all_checkpoints_stay_when_no_number_is_given(tmp_path):
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


def test_the_best_is_a_file_of_its_own(tmp_path, state):
    with Saver(tmp_path, keep=1) as saver:
        saver.save(state, META, file_name(3), best=True)
    with open(tmp_path / file_name(3), "r+b") as file:
        file.write(b"damage")
    arrays, meta = read(tmp_path / BEST)
    assert meta == META
    assert same_trees(restore(state, arrays), state)


def test_old_checkpoints_stay_until_the_new_one_is_in_place(tmp_path):
    (tmp_path / file_name(2)).mkdir()  # the new one cannot take its place
    saver = Saver(tmp_path, keep=1)
    saver.save({"n": np.int64(1)}, {}, file_name(1))
    saver.save({"n": np.int64(2)}, {}, file_name(2))
    with pytest.raises(UserError, match=r"checkpoint-epoch_2\.params: Is a directory"):
        saver.close()
    assert sorted(os.listdir(tmp_path)) == [file_name(1), file_name(2)]
    assert read(tmp_path / file_name(1))[0]["n"] == 1


def test_a_save_that_failed_is_told_and_the_next_one_makes_up_for_the_best(tmp_path, caplog):
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


def test_a_kill_between_two_files_leaves_the_best_that_the_numbered_one_speaks_of(
    tmp_path, monkeypatch
):
    written = []
    monkeypatch.setattr(single_file, "atomic_write", lambda path, *_: written.append(path.name))
    with Saver(tmp_path) as saver:
        saver.save({"n": np.int64(1)}, {}, file_name(1), best=True)
    assert written == [BEST, file_name(1)]


def test_a_better_one_takes_the_place_of_the_best_that_could_not_be_saved(tmp_path):
    folder = tmp_path / "run"
    with Saver(folder) as saver:
        folder.rmdir()
        saver.save({"n": np.int64(1)}, {}, None, best=True)
        saver._wait_for_pending()
        folder.mkdir()
        saver.save({"n": np.int64(2)}, {}, None, best=True)
    assert read(folder / BEST)[0]["n"] == 2


def test_checkpoints_of_an_abandoned_future_are_set_aside_and_not_deleted(tmp_path):
    for event in [(1,), (2,), (3, 5), (3,), (4, 1)]:
        write(tmp_path / file_name(*event), {"n": np.int64(0)}, {})
    aside = set_aside_after(tmp_path, 3, 5)
    assert sorted(os.listdir(aside)) == [file_name(3), file_name(4, 1)]
    assert latest(tmp_path) == tmp_path / file_name(3, 5)
    assert set_aside_after(tmp_path, 3, 5) is None
    again = set_aside_after(tmp_path, 1)
    assert again != aside
    assert sorted(os.listdir(again)) == [file_name(2), file_name(3, 5)]


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
            go_on = lock(saver)
            saver.save(state, {}, file_name(epoch))
            for _ in range(3):
                given, state = state, jax.block_until_ready(update(state))
            assert given["large"].is_deleted(), "nothing was donated: the test would show nothing"
            go_on.set()
    for epoch in range(20):
        for array in read(tmp_path / file_name(epoch))[0].values():
            assert np.all(array == 3 * epoch)


def test_numpy_arrays_and_meta_may_change_after_save(tmp_path):
    array, meta = np.zeros(10), {"sums": {"loss": 1.0}}
    with Saver(tmp_path) as saver:
        go_on = lock(saver)
        saver.save({"a": array}, meta, file_name(1))
        array += 1
        meta["sums"]["loss"] = 2.0
        go_on.set()
    arrays, saved = read(tmp_path / file_name(1))
    assert not arrays["a"].any()
    assert saved == {"sums": {"loss": 1.0}}


# ---- restoring ----


def saved(tree, path):
    write(path / "saved.params", tree, {})
    return read(path / "saved.params")[0]


def test_a_state_is_restored_bit_for_bit_as_arrays_that_may_be_donated(tmp_path, state):
    arrays = saved(state, tmp_path)
    blank = jax.tree.map(jnp.zeros_like, state)
    restored = restore(blank, arrays)
    assert same_trees(restored, state)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))
    jax.block_until_ready(jax.jit(lambda tree: tree, donate_argnums=0)(restored))
    assert same_trees(restore(blank, arrays), state)


def test_a_template_may_be_of_shapes_only(tmp_path, state):
    assert same_trees(restore(jax.eval_shape(lambda: state), saved(state, tmp_path)), state)


SHARDED = """if True:
    import sys
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import NamedSharding, PartitionSpec
    from training.checkpoint.saver import Saver
    from training.checkpoint.naming import file_name, find
    from training.checkpoint.reading import read
    from training.checkpoint.restore import restore

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    state = {"w": jax.device_put(jnp.arange(32.0).reshape(8, 4), split), "b": jnp.ones(3)}
    state["b"] = jax.device_put(state["b"], whole)
    with Saver(sys.argv[1]) as saver:
        saver.save(state, {}, file_name(1))
    arrays, _ = read(find(sys.argv[1]))
    back = restore(jax.tree.map(lambda x: 0 * x, state), arrays)
    print(all(np.array_equal(back[name], state[name]) for name in state))
    print(back["w"].sharding == split, back["b"].sharding == whole, len(back["w"].devices()))
"""


def test_arrays_spread_over_devices_are_saved_whole_and_restored_to_their_devices(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    assert run(SHARDED, tmp_path) == "True\nTrue True 4\n"


def test_all_that_does_not_fit_is_listed(tmp_path, state):
    arrays = saved(state, tmp_path)
    del arrays["optimizers/0/count"]
    arrays["params/head/bias"] = np.zeros(2, np.float32)
    arrays["params/stem/kernel"] = np.zeros((4, 3), np.float32)
    arrays["step"] = np.int64(7)
    with pytest.raises(UserError) as error:
        restore(state, arrays, where="runs/a.params")
    assert str(error.value) == (
        "runs/a.params does not fit.\n"
        "  1 missing:\n"
        "    optimizers/0/count: int32 ()\n"
        "  1 not expected:\n"
        "    params/head/bias: float32 (2,)\n"
        "  2 different:\n"
        "    step: int64 (), expected int32 ()\n"
        "    params/stem/kernel: float32 (4, 3), expected float32 (3, 4)\n"
        "Use the config and the model code it was saved with, or take only parts that fit."
    )


def test_long_lists_of_misfits_are_cut_and_counted():
    template = {f"layer{index}": np.zeros(2) for index in range(25)}
    with pytest.raises(UserError) as error:
        restore(template, {})
    lines = str(error.value).splitlines()
    assert lines[1] == "  25 missing:"
    assert lines[-2] == "    ..."
    assert len(lines) == 14


def test_a_subtree_is_restored_by_its_prefix(tmp_path, state):
    arrays = saved(state, tmp_path)
    blank = jax.tree.map(jnp.zeros_like, state.params)
    assert same_trees(restore(blank, arrays, prefix="params"), state.params)
    assert same_trees(restore(blank, arrays, prefix="optimizers/0/mu"), state.params)
    with pytest.raises(UserError, match="3 missing:\n    ema_params/stage1/norm/scale"):
        restore(blank, arrays, prefix="ema_params")


def test_partial_takes_the_named_parts_and_keeps_the_rest(tmp_path, state):
    arrays = saved(state, tmp_path)
    fresh = jax.tree.map(lambda x: x - 5, state.params) | {"stem2": jnp.ones(9)}
    restored = restore(fresh, arrays, "params", partial=["stem", "stage1/norm/"])
    assert same(restored["stem"]["kernel"], state.params["stem"]["kernel"])
    assert same(restored["stage1"]["norm"]["scale"], state.params["stage1"]["norm"]["scale"])
    assert restored["stage1"]["stats"]["mean"] is fresh["stage1"]["stats"]["mean"]
    assert restored["stem2"] is fresh["stem2"]
    one = restore(fresh, arrays, "params", partial=["stage1/norm/scale"])
    assert same(one["stage1"]["norm"]["scale"], state.params["stage1"]["norm"]["scale"])
    assert one["stem"]["kernel"] is fresh["stem"]["kernel"]


@pytest.mark.parametrize(
    ("partial", "words"),
    [
        (
            ["stem", "stage1/nrm"],
            "no part is named 'params/stage1/nrm'; did you mean 'params/stage1/norm",
        ),
        (["ste"], "no part is named 'params/ste'; did you mean 'params/stem"),
        ([], "no part is named 'params/'"),
        (["stem2"], "1 missing:\n    params/stem2"),
        (
            ["stage1"],
            "1 different:\n    params/stage1/norm/scale: float32 (4,), expected float32 (5,)",
        ),
        (["extra"], "1 not expected:\n    params/extra"),
    ],
)
def test_a_part_that_is_not_there_or_does_not_fit_is_told(tmp_path, state, partial, words):
    arrays = saved(state, tmp_path) | {"params/extra": np.ones(2)}
    fresh = jax.tree.map(lambda x: x, state.params) | {"stem2": jnp.ones(9)}
    fresh["stage1"]["norm"] = {"scale": jnp.ones(5)}
    with pytest.raises(UserError) as error:
        restore(fresh, arrays, "params", partial=partial)
    assert words in str(error.value)


def test_the_running_average_is_what_a_network_is_evaluated_with(tmp_path):
    state = {
        "step": jnp.int32(1),
        "params": {"stem": {"kernel": jnp.ones(2)}, "norm": {"stats": jnp.ones(3)}},
        "ema_params": {"stem": {"kernel": jnp.full(2, 0.5)}},
    }
    params = network_params(saved(state, tmp_path))
    assert {name: array.tolist() for name, array in params.items()} == {
        "stem/kernel": [0.5, 0.5],
        "norm/stats": [1, 1, 1],
    }
    plain = network_params(saved(state | {"ema_params": None}, tmp_path))
    assert plain["stem/kernel"].tolist() == [1, 1]
    restored = restore(state["params"], params)
    assert restored["stem"]["kernel"].tolist() == [0.5, 0.5]
    with pytest.raises(UserError, match="the checkpoint has no params, only step"):
        network_params({"step": np.int32(1)})


# ---- finding ----


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


def test_a_checkpoint_that_is_not_found_is_told_with_those_there_are(tmp_path):
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
    with pytest.raises(UserError, match=r"no best checkpoint here; .* \(12 in all\)\.$"):
        find(tmp_path, prefer_best=True)


def test_bfloat16_is_read_as_the_type_that_jax_uses(tmp_path):
    write(tmp_path / "a", {"x": jnp.ones(2, jnp.bfloat16)}, {})
    assert read(tmp_path / "a")[0]["x"].dtype == ml_dtypes.bfloat16
