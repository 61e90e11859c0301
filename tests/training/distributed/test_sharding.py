"""Several devices and processes compared with one; benchmarks/scale.py has longer versions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import train
from benchmarks import scale
from data_loader.base import BaseDataLoader
from tests.helpers.process_groups import outputs_of
from training.distributed import processes
from training.engine.accumulation import _pieces
from utils import UserError


class Numbers(BaseDataLoader):
    def read(self, indices):
        return {"inputs": self.dataset[indices], "targets": -self.dataset[indices]}


# ---- the same training ----


def test_two_processes_train_as_one_does(tmp_path, monkeypatch):
    pair, single = (scale.Group(tmp_path / str(count), 1, 8, (), count) for count in (2, 1))
    started = pair.start_all()
    monkeypatch.chdir(single.folder)
    assert train.main(["-c", "config.json"]) == 0
    first, second = outputs_of(pair, started, [0, 0])
    for line, other in zip(pair.lines(), single.lines(), strict=True):
        assert line == pytest.approx(other, rel=1e-5)
    assert "Finished!" in first
    assert "[main" not in second
    assert len(list(pair.folder.glob("saved/*/*"))) == 1


@given(
    examples=st.integers(24, 90), size=st.sampled_from([6, 12, 24]),
    count=st.sampled_from([1, 2, 3]), epoch=st.integers(1, 3),
)  # fmt: skip
def test_the_shards_of_a_batch_are_the_whole_batch(examples, size, count, epoch):
    whole = Numbers(np.arange(examples), size, shuffle=True)
    shards = []
    for index in range(count):
        loader = Numbers(np.arange(examples), size, shuffle=True)
        loader.shard = index, count
        shards.append(loader.batches(epoch))
    for batch, *parts in zip(whole.batches(epoch), *shards, strict=True):
        for name, values in batch.items():
            np.testing.assert_array_equal(values, np.concatenate([part[name] for part in parts]))


@given(pieces=st.sampled_from([1, 2, 4]), devices=st.sampled_from([1, 2, 4]))
def test_every_device_has_the_same_number_of_rows_of_each_piece(pieces, devices):
    rows = np.arange(2 * pieces * devices)
    cut = np.asarray(_pieces({"rows": rows}, pieces)["rows"])
    assert sorted(cut.ravel()) == list(rows)
    owner = cut // (2 * pieces)  # a device has a block of rows
    for piece in owner:
        assert np.bincount(piece, minlength=devices).tolist() == [2] * devices


@given(shape=st.lists(st.integers(1, 300), max_size=4), shards=st.sampled_from([2, 4, 8]))
def test_a_large_array_is_split_along_its_longest_divisible_axis(shape, shards):
    from jax.sharding import AbstractMesh

    from training.distributed.sharding import AXES, SMALLEST, state_sharding

    spec = tuple(state_sharding(AbstractMesh((1, shards), AXES), shape).spec)
    divisible = [size for size in shape if size % shards == 0]
    if not divisible or math.prod(shape) < SMALLEST:
        assert spec == ()
    else:
        assert spec[:-1] == (None,) * (len(spec) - 1)
        assert spec[-1] == "shards"
        assert shape[len(spec) - 1] == max(divisible)


# ---- processes that start, stop and are lost ----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--processes", "2"], "--coordinator: missing (or JAX_COORDINATOR_ADDRESS)"),
        (["--coordinator", "here", "--processes", "2", "--process-id", "0"], "expected HOST:PORT"),
        (
            ["--coordinator", "a:1", "--processes", "2", "--process-id", "2"],
            "--process-id: expected 0 to 1, got 2",
        ),
    ],
)
def test_options_of_a_process_that_do_not_fit_together_are_refused(run, capsys, words, message):
    code, folder = run(*words)
    assert (code, folder) == (1, None)
    assert message in capsys.readouterr().err


def test_variables_give_a_process_its_number(monkeypatch):
    options = train.parse_arguments(["-c", "config.json"])
    for name, value in zip(processes.VARIABLES, ["host:1234", "4", "3"], strict=True):
        monkeypatch.setenv(name, value)
    assert processes._place(options) == ("host:1234", 4, 3)
    monkeypatch.setenv("JAX_PROCESS_ID", "three")
    with pytest.raises(UserError, match="whole numbers"):
        processes._place(options)
