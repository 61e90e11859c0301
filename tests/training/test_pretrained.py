"""Weights of other programs; tests/training/full/test_pretrained.py begins runs with them."""

import json
import tracemalloc
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax

from training.checkpoint.foreign import is_foreign, open_foreign, read_foreign
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
