"""Several updates in a call, data on the device, copies of several seeds: the same bits, faster."""

import jax
import numpy as np
import pytest

from data_loader import device_cache as resident
from data_loader.dataloader import DataLoader
from data_loader.device_cache import TableView, cache_on_device, gather
from tests.helpers.project import by_set, same_arrays
from tests.helpers.scans import RESIDENT, SEVERAL
from training.checkpoint.naming import latest
from training.checkpoint.reading import read
from training.config import read_config
from training.engine.build import build
from training.engine.scan import default_steps, even_steps
from utils import UserError


@pytest.fixture
def parts_of(config, write_config):
    return lambda *overrides: build(read_config(write_config(config), overrides))


def test_a_run_has_the_same_bits_however_its_batches_reach_the_device(run, trusty):
    trusty["training"]["epochs"] = by_set(1, 2)
    _, plain = run()
    ways = by_set([(SEVERAL, RESIDENT)], [(RESIDENT,), (SEVERAL, RESIDENT)])
    for settings in ways:
        code, other = run(*settings)
        assert code == 0
        assert (plain / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
        assert same_arrays(read(latest(plain))[0], read(latest(other))[0])


def test_calls_are_as_even_as_possible():
    for batches in range(1, 130):
        for most in range(1, 140):
            steps = even_steps(batches, most)
            calls = -(-batches // steps)
            assert 1 <= steps <= most
            assert calls == -(-batches // most)  # no more of them
            assert calls * steps - batches < calls  # at most one step each is idle
    assert even_steps(118, 16) == 15


# Data on the device ----------------------------------------------------------------------------


def test_a_cached_batch_is_indices_into_one_table_on_the_device(parts_of, trusty):
    experiment, plain = parts_of(RESIDENT), parts_of()
    loaders = [experiment.loaders[split] for split in ("train", "validation")]
    (batch, held_out), (expected, _) = (
        [next(one.batches(2)) for one in two]
        for two in (loaders, [plain.loaders["train"], plain.loaders["validation"]])
    )
    assert isinstance(batch["inputs"], TableView)
    assert isinstance(batch["inputs"].table, jax.Array)
    assert batch["inputs"].table.shape == (1000, 1, 28, 28)
    assert batch["inputs"].table is held_out["inputs"].table
    fetched = gather(batch)
    assert fetched["inputs"].dtype == np.uint8
    for name in expected:
        np.testing.assert_array_equal(fetched[name], expected[name])


def test_on_a_cpu_data_are_cached_on_the_device_only_if_wanted(parts_of):
    assert isinstance(next(parts_of().loaders["train"].batches(1))["inputs"], np.ndarray)


class Pairs:
    """Examples whose inputs are a dict; read one by one, or as a whole."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return {"a": np.full(3, index, np.float32), "b": np.int32(index)}, np.int32(index)


class WholePairs(Pairs):
    def __getitems__(self, indices):
        a = np.repeat(indices[:, None], 3, 1).astype(np.float32)
        return {"a": a, "b": indices.astype(np.int32)}, indices.astype(np.int32)


def weighted(samples):
    inputs, targets = zip(*samples, strict=True)
    rest = {"targets": np.stack(targets), "weight": np.float32([target % 2 for target in targets])}
    return {"inputs": np.stack([one["b"] for one in inputs])} | rest


@pytest.mark.parametrize("loader", [
    DataLoader(Pairs(), 4, True, 3), DataLoader(WholePairs(), 4, True, 3),
    DataLoader(Pairs(), 4, True, 3, collate=weighted),
])  # fmt: skip
def test_cached_batches_hold_what_the_loaders_own_do(loader):
    (other,) = cache_on_device({"train": loader}, True, None, "here").values()
    for batch, expected in zip(other.batches(5, 1), loader.batches(5, 1), strict=True):
        assert isinstance(batch["targets"], TableView)
        jax.tree.map(np.testing.assert_array_equal, gather(batch), expected)


def test_auto_caches_only_data_in_memory_that_fit_on_an_accelerator(monkeypatch):
    """No accelerator is here, so what it would say of itself is put in JAX's mouth."""
    loaders = {"train": DataLoader(WholePairs(), 4), "test": DataLoader(Pairs(), 4)}
    needed = 10 * (3 * 4 + 4 + 4)
    monkeypatch.setattr(resident.jax, "default_backend", lambda: "gpu")
    assert (
        cache_on_device(loaders, "auto", None, "here") is loaders
    )  # as this device does not say what is free
    for free, fits in ((2 * needed, True), (2 * needed - 1, False)):
        monkeypatch.setattr(resident, "_free_memory", lambda unknown, free=free: free)
        found = cache_on_device(loaders, "auto", None, "here")
        assert (found["train"] is not loaders["train"]) == fits
        assert found["test"] is loaders["test"]  # its reading may be more than copying
    monkeypatch.setattr(resident, "_free_memory", lambda unknown: 2 * needed - 1)
    with pytest.raises(UserError, match=r"here: true, but the data take 400 bytes and .* 399 left"):
        cache_on_device(loaders, True, None, "here")
    assert cache_on_device(loaders, False, None, "here") is loaders


def test_a_call_takes_several_updates_where_the_data_are_on_an_accelerator(monkeypatch):
    cached = cache_on_device({"train": DataLoader(WholePairs(), 4)}, True, None, "here")["train"]
    assert default_steps(cached) == 1
    monkeypatch.setattr(resident.jax, "default_backend", lambda: "gpu")
    assert default_steps(cached) == 16
    assert default_steps(DataLoader(WholePairs(), 4)) == 1


# Several seeds ---------------------------------------------------------------------------------
