"""Weights of other programs; tests/training/full/test_pretrained.py begins runs with them."""

import json
import tracemalloc
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax

from training.checkpoint.foreign import in_folder, is_foreign, open_foreign, read_foreign
from utils import UserError


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.int32])
def test_arrays_are_those_of_the_safetensors_library(tmp_path, dtype):
    path = tmp_path / "a.safetensors"
    arrays = {"a.b": jnp.arange(-3, 9).reshape(3, 4).astype(dtype), "c": jnp.ones((), dtype)}
    safetensors.flax.save_file(arrays, path, {"format": "flax"})
    assert is_foreign(path)
    read = read_foreign(path)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        wanted = np.int32 if dtype == jnp.int32 else np.float32
        assert read[name].dtype == wanted
        assert np.array_equal(read[name], np.asarray(array).astype(wanted))


def test_a_checkpoint_of_a_run_is_not_foreign():
    old = Path(__file__).parents[1] / "fixtures" / "old_run"
    assert not is_foreign(old / "checkpoint-epoch_1.params")


def test_a_file_whose_first_bytes_are_those_of_json_is_no_index(tmp_path):
    path = tmp_path / "a.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    header = header.ljust(0x7B20)  # a length of " {" and zeros
    path.write_bytes(len(header).to_bytes(8, "little") + header + np.float32(3).tobytes())
    assert is_foreign(path)
    assert read_foreign(path) == {"a": 3}


@pytest.mark.parametrize(
    ("name", "begin", "words"),
    [
        ("m.weights.h5", b"\x89HDF\r\n", "Keras"),
        ("m.keras", b"PK\x03\x04", "Keras"),
        ("a.npz", b"PK\x03\x04", "numpy.load"),
        ("m.msgpack", b"\x81\xa1a", "msgpack_restore"),
        ("m.gguf", b"GGUF\x03", "GGUF"),
        ("m.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("m.safetensors", b"<!doctype html>", "HTML"),
        ("m.pth", b"PK\x03\x04", "m.pth m.safetensors"),
        ("m.safetensors", b"\x80\x02", "m.safetensors m_converted.safetensors"),
    ],
)
def test_a_file_of_another_format_is_named_with_what_to_do(tmp_path, name, begin, words):
    (tmp_path / name).write_bytes(begin + bytes(100))
    with pytest.raises(UserError, match="expected a safetensors file") as error:
        is_foreign(tmp_path / name)
    assert words in str(error.value)


def test_a_folder_of_hugging_face_stands_for_its_index_or_its_file(tmp_path):
    assert in_folder(tmp_path) == tmp_path
    for name in ("model.safetensors", "model.safetensors.index.json"):
        (tmp_path / name).touch()
        assert in_folder(tmp_path) == tmp_path / name


def entry(begin, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


BAD = {
    "an array that ends behind the file": {"a": entry(0, 8), "b": entry(8, 16), "c": entry(16, 24)},
    "two arrays at one place": {"a": entry(0, 8), "b": entry(0, 8)},
    "arrays that overlap": {"a": entry(0, 8), "b": entry(4, 12)},
    "bytes of no array": {"a": entry(0, 8)},
    "an array before the file": {"a": entry(-8, 0), "b": entry(0, 16, (4,))},
    "a size that is not that of the shape": {"a": entry(0, 8, (3,)), "b": entry(8, 16)},
    "a shape of 2**80 numbers": {"a": entry(0, 16, (2**40, 2**40))},
    "a negative shape": {"a": entry(0, 16, (-2, -2))},
    "a dtype that is none": {"a": entry(0, 16, (4,), "O")},
    "an entry that is none": {"a": [0, 16]},
    "a million arrays": b'"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}, ' * 10**6,
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_claims_what_is_not_so_is_refused_in_one_message(kind, tmp_path):
    header = BAD[kind] if isinstance(BAD[kind], bytes) else json.dumps(BAD[kind]).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    assert is_foreign(path)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a.safetensors is cut, damaged or no safetensors") as one:
        open_foreign(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000
    assert len(str(one.value)) < 500


def test_an_index_that_leads_elsewhere_is_refused(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    for name in ("../a.safetensors", "/etc/passwd", "", "b/../../a"):
        index.write_text(json.dumps({"weight_map": {"w": name}}))
        with pytest.raises(UserError, match=r"is no index of safetensors files|there is no such"):
            open_foreign(index)
