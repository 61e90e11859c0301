"""Weights of other programs; tests/training/full/test_pretrained.py begins runs with them."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax

from training.checkpoint.foreign import is_foreign, read_foreign


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
