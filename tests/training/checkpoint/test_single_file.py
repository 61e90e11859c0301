"""Files come back bit for bit, other tools read them, and damaged ones are refused."""

import json
import os
import pickle
import stat
import tracemalloc
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.flax
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.checkpoints import META, same
from tests.helpers.project import examples
from training.checkpoint import single_file
from training.checkpoint.naming import file_name
from training.checkpoint.reading import read
from training.checkpoint.single_file import write
from utils import UserError


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


@examples(100)
@given(TREES)
def test_arrays_of_every_dtype_and_shape_come_back_bit_for_bit(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "round_trip.params"
    write(path, tree, META)
    arrays, meta = read(path)
    assert meta == META
    assert arrays.keys() == tree.keys()
    assert all(same(arrays[name], tree[name]) for name in tree)
    assert all(array.flags.aligned for array in arrays.values())


@examples(100)
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


def test_arrays_in_any_memory_order_come_back_with_the_same_values(tmp_path):
    grid = np.arange(24.0).reshape(2, 3, 4)
    tree = {"turned": grid.T, "fortran": np.asfortranarray(grid), "strided": grid[:, ::2, ::-1]}
    write(tmp_path / "a", tree, {})
    arrays, _ = read(tmp_path / "a")
    assert all(np.array_equal(arrays[name], tree[name]) for name in tree)


def test_bfloat16_is_read_as_the_type_that_jax_uses(tmp_path):
    write(tmp_path / "a", {"x": jnp.ones(2, jnp.bfloat16)}, {})
    assert read(tmp_path / "a")[0]["x"].dtype == ml_dtypes.bfloat16


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
def test_an_array_that_the_format_cannot_hold_is_refused_by_name(tmp_path, leaf, words):
    with pytest.raises(ValueError, match=words):
        write(tmp_path / "a", {"state": {"x": leaf}}, {})
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("tree", [{"a/b": 1, "a": {"b": 2}}, {"__metadata__": 1}])
def test_a_name_that_is_taken_is_refused(tmp_path, tree):
    with pytest.raises(ValueError, match="the name is taken"):
        write(tmp_path / "a", tree, {})


def test_a_header_longer_than_the_limit_of_reading_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="names and meta take"):
        write(tmp_path / "a", {}, {"notes": "x" * single_file.HEADER_LIMIT})


def test_a_file_is_renamed_once_its_bytes_are_on_disk_and_then_its_folder_is_synced_too(
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


@examples(150)
@given(st.data())
def test_overwritten_and_lost_ranges_of_bytes_are_refused(tmp_path_factory, data):
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
        file.truncate(2**34)  # a sparse file: occupies no space
    with pytest.raises(UserError, match="its header has 8589934592 bytes, more than 12582912"):
        read(tmp_path / "a")
