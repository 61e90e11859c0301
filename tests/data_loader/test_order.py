"""The order of examples, splits, and how a batch is read."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loader.base import BaseDataLoader, collate
from data_loader.dataloader import DataLoader
from tests.helpers.data_sets import Numbers, WholeNumbers, listed
from tests.helpers.project import ROOT, few
from utils import UserError


def real(batches):
    """Returns the examples of weight 1, in order."""
    return [
        int(x)
        for b in batches
        for x, w in zip(b["inputs"][:, 0], b["weight"], strict=True)
        if w == 1
    ]


# ---- Order and splits


@few(max_examples=60)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.booleans(),
    st.integers(0, 2**63 - 1),
    st.integers(1, 1000),
    st.sampled_from([Numbers, WholeNumbers]),
    st.integers(0, 3),
    st.data(),
)
def test_an_epoch_has_every_example_once_and_resumes_at_any_batch(
    examples, batch_size, shuffle, seed, epoch, dataset, prefetch, data
):
    batch_size = min(batch_size, examples)
    loader = DataLoader(dataset(examples), batch_size, shuffle, seed, prefetch=prefetch)
    batches = list(loader.batches(epoch))
    assert len(batches) == len(loader) == int(np.ceil(examples / batch_size))
    assert sorted(real(batches)) == list(range(examples))
    for batch in batches:
        assert batch["inputs"].shape == (batch_size, 1)
        assert batch["weight"].dtype == np.float32
        assert set(batch["weight"]) <= {0, 1}
        assert set(batch["inputs"][:, 0]) <= set(range(examples))
        assert (batch["targets"] == -batch["inputs"][:, 0]).all()
    start = data.draw(st.integers(0, len(batches)))
    assert listed(loader.batches(epoch, start)) == listed(batches[start:])


def test_without_shuffle_every_epoch_has_the_data_sets_own_order():
    loader = DataLoader(Numbers(10), 4)
    assert real(loader.batches(1)) == real(loader.batches(2)) == list(range(10))


def test_shuffles_differ_by_epoch_and_by_seed_and_repeat_otherwise():
    def order(seed, epoch):
        return real(DataLoader(WholeNumbers(100), 10, True, seed).batches(epoch))

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(1, 4)}) == 9


def test_an_order_is_drawn_once_and_kept_in_32_bits_but_examples_are_asked_for_in_64():
    asked = []

    class Asked(WholeNumbers):
        def __getitems__(self, indices):
            asked.append(np.asarray(indices))
            return super().__getitems__(indices)

    loader = DataLoader(Asked(100), batch_size=8, shuffle=True, validation_split=0.1, prefetch=0)
    order = loader.order(1)
    assert order.dtype == loader.indices.dtype == np.int32
    assert np.shares_memory(order, loader.order(1))
    assert not np.shares_memory(order, loader.order(2))
    asked.clear()
    assert len(list(loader.batches(1))) == len(asked) == 12
    assert {one.dtype for one in asked} == {np.dtype(np.int64)}
    np.testing.assert_array_equal(np.concatenate(asked), order)


def test_another_process_computes_the_documented_order():
    expected = np.random.Generator(np.random.Philox(key=[5, 3])).permutation(50).tolist()
    loader = DataLoader(WholeNumbers(50), 8, shuffle=True, seed=5)
    program = (
        "from data_loader.dataloader import DataLoader\n"
        "loader = DataLoader([(i, i) for i in range(50)], 8, shuffle=True, seed=5, prefetch=0)\n"
        "for batch in loader.batches(3):\n"
        "    print(*batch['inputs'][batch['weight'] > 0])\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "42"}
    other = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=environment)
    assert real(loader.batches(3)) == expected == [int(number) for number in other.split()]


@few(max_examples=40)
@given(st.integers(2, 80), st.data(), st.integers(0, 99), st.integers(1, 9))
def test_training_and_validation_split_the_data_set(examples, data, seed, epoch):
    count = data.draw(st.integers(1, examples - 1))
    share = data.draw(st.sampled_from([count, count / examples]))
    batch_size = data.draw(st.integers(1, examples - count))
    loader = DataLoader(WholeNumbers(examples), batch_size, True, seed, validation_split=share)
    train, held_out = real(loader.batches(epoch)), real(loader.validation().batches(epoch))
    assert loader.validation().examples == len(held_out) == count
    assert loader.examples == len(train) == examples - count
    assert sorted(train + held_out) == list(range(examples))
    assert held_out == sorted(held_out) == real(loader.validation().batches(epoch + 1))
    assert {len(batch["weight"]) for batch in loader.validation().batches(1)} == {batch_size}


def test_the_split_depends_on_the_seed_and_is_made_only_on_request():
    def held_out(seed):
        return real(DataLoader(Numbers(100), 5, True, seed, 0.1).validation().batches(1))

    assert held_out(1) == held_out(1) != held_out(2)
    assert DataLoader(Numbers(100), 5).validation() is None
    assert DataLoader(Numbers(100), 5, validation_split=0.1).validation().validation() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected a whole number of at least 1"),
        ({"batch_size": 2.0}, r"batch_size is 2\.0"),
        ({"batch_size": True}, "batch_size is True"),
        ({"batch_size": "8"}, "batch_size is '8'"),
        ({"batch_size": 101}, "batch_size is 101, but there are only 100 examples"),
        ({"batch_size": 91, "validation_split": 10}, "only 90 examples"),
        ({"seed": -1}, "seed is -1"),
        ({"prefetch": -1}, "prefetch is -1"),
        ({"workers": 1.5}, r"workers is 1\.5"),
        ({"workers": 2, "worker_kind": "fibre"}, "worker_kind is 'fibre'; expected 'thread' or"),
        ({"validation_split": 100}, "validation_split is 100"),
        ({"validation_split": 1.0}, r"validation_split is 1\.0"),
        ({"validation_split": -0.1}, r"validation_split is -0\.1"),
        ({"validation_split": 0.001}, r"validation_split is 0\.001"),
        ({"validation_split": 0.999}, r"validation_split is 0\.999"),
        ({"validation_split": float("nan")}, "validation_split is nan"),
        ({"validation_split": True}, "validation_split is True"),
        ({"validation_split": "a tenth"}, "validation_split is 'a tenth'"),
        ({"validation_split": None}, "validation_split is None"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(arguments, message):
    with pytest.raises(UserError, match=message):
        DataLoader(Numbers(100), **{"batch_size": 10, **arguments})


def test_an_empty_data_set_is_refused():
    with pytest.raises(UserError, match="only 0 examples"):
        DataLoader(Numbers(0), 1)


def test_workers_that_would_be_idle_are_refused():
    with pytest.raises(UserError, match="__getitems__"):
        DataLoader(WholeNumbers(10), 2, workers=2)


# ---- Reading a batch


def test_a_custom_loader_needs_only_read():
    class Squares(BaseDataLoader):
        def read(self, indices):
            x = self.dataset[indices]
            return {"inputs": x, "targets": x**2}

    batches = list(Squares(np.arange(10.0), 4).batches(1))
    assert batches[-1]["targets"].tolist() == [64, 81, 0, 1]
    assert batches[-1]["weight"].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_workers_give_the_same_batches_as_none(kind):
    def epochs(**arguments):
        loader = DataLoader(Numbers(30), 8, True, validation_split=9, **arguments)
        return [listed(x.batches(e, 1)) for x in (loader, loader.validation()) for e in (1, 2)]

    assert epochs(workers=2, worker_kind=kind) == epochs(prefetch=0)


def test_whole_batches_equal_stacked_samples():
    whole = DataLoader(WholeNumbers(30), 8, True).batches(1)
    stacked = DataLoader(WholeNumbers(30), 8, True, collate=collate).batches(1)
    for one, other in zip(whole, stacked, strict=True):
        for name in ("inputs", "targets", "weight"):
            np.testing.assert_array_equal(one[name], other[name])
            assert one[name].dtype == other[name].dtype


def test_collate_stacks_dicts_of_inputs_and_names_those_of_different_shapes():
    batch = collate([({"tokens": [1, 2], "length": 2}, 0.5), ({"tokens": [3, 4], "length": 1}, 1)])
    assert batch["inputs"]["tokens"].tolist() == [[1, 2], [3, 4]]
    assert batch["inputs"]["length"].tolist() == [2, 1]
    assert batch["targets"].tolist() == [0.5, 1]
    with pytest.raises(UserError, match=r"inputs\.tokens .* shapes \(1,\) and \(2,\)"):
        collate([({"tokens": [1, 2]}, 0), ({"tokens": [3]}, 0)])


def test_a_custom_collate_may_weigh_positions_and_padding_has_weight_0():
    def pad(samples):
        tokens = np.zeros((len(samples), 3))
        weight = np.zeros((len(samples), 3))
        for row, (number, _) in enumerate(samples):
            tokens[row, : int(number[0]) % 4] = number[0]
            weight[row, : int(number[0]) % 4] = 0.5
        return {"inputs": tokens, "targets": tokens, "weight": weight}

    *_, last = DataLoader(WholeNumbers(6), 4, collate=pad).batches(1)
    assert last["weight"].dtype == np.float32
    assert last["weight"].tolist() == [[0, 0, 0], [0.5, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert last["inputs"][:, 0].tolist() == [0, 5, 0, 1]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda samples: samples, "a batch is a list"),
        (
            lambda samples: {"input": 1, "targets": 2},
            r"a batch has the keys \['input', 'targets'\]",
        ),
        (lambda samples: {**collate(samples), "weight": np.ones(3)}, r"weight .* \(3,\)"),
        (lambda samples: {**collate(samples), "weight": 1.0}, r"weight .* \(\)"),
    ],
)
def test_a_collate_that_makes_no_batch_raises_an_error_with_what_is_expected(made, message):
    with pytest.raises(UserError, match=message):
        next(DataLoader(Numbers(4), 4, collate=made).batches(1))
