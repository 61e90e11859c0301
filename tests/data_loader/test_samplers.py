"""Samplers, epochs of another length, the last batch left out."""

import copy
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loader.dataloader import DataLoader
from data_loader.samplers import balanced
from tests.helpers.data_sets import WholeNumbers
from tests.helpers.project import examples
from training.config import read_config
from training.engine.build import build
from utils import UserError

COUNTS = [90, 9, 1]  # examples of each class


class Rare(WholeNumbers):
    """Example i is (i, -i); its label is a class of COUNTS."""

    def __init__(self):
        super().__init__(sum(COUNTS))
        self.labels = np.repeat(np.arange(3), COUNTS).astype(np.int32)


def drawn(loader, epoch=1):
    """The examples of an epoch, padding left out, in order."""
    return [
        int(x)
        for batch in loader.batches(epoch)
        for x, weight in zip(batch["inputs"][:, 0], batch["weight"], strict=True)
        if weight
    ]


@examples(100)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 99), st.integers(0, 9))
def test_balanced_draws_each_class_and_each_of_its_examples_equally_often(counts, epoch, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    indices = balanced(labels, epoch, seed)
    assert len(indices) == len(labels)
    of_class = np.bincount(labels[indices], minlength=len(counts))
    assert of_class.max() - of_class.min() <= 1
    of_example = np.bincount(indices, minlength=len(labels))
    for index in range(len(counts)):
        members = of_example[labels == index]
        assert members.max() - members.min() <= 1
    assert indices.tolist() == balanced(labels, epoch, seed).tolist()


def test_a_balanced_loader_differs_by_epoch_and_resumes_at_any_batch():
    loader = DataLoader(Rare(), 10, sampler="balanced", seed=3)
    assert sorted(np.bincount(Rare().labels[drawn(loader)]).tolist()) == [33, 33, 34]
    assert drawn(loader, 1) != drawn(loader, 2)
    rest = [batch["inputs"][:, 0].tolist() for batch in loader.batches(2, 4)]
    assert np.concatenate(rest).tolist() == drawn(loader, 2)[40:]


def test_weights_draw_in_proportion(tmp_path):
    weights = np.r_[np.zeros(50), np.ones(30), np.full(20, 3.0)]
    np.save(tmp_path / "w.npy", weights)
    loader = DataLoader(WholeNumbers(100), 10, sampler=weights.tolist(), examples_per_epoch=20000)
    counts = np.bincount(drawn(loader), minlength=100)
    assert counts[:50].sum() == 0
    assert counts[80:].sum() / counts[50:80].sum() == pytest.approx(60 / 30, rel=0.05)
    same = DataLoader(WholeNumbers(100), 10, sampler=str(tmp_path / "w.npy"))
    assert drawn(same) == drawn(DataLoader(WholeNumbers(100), 10, sampler=weights))


def test_a_function_of_ones_own_chooses_among_what_is_not_held_out():
    def rare_first(labels, epoch, seed):
        return np.argsort(-labels, kind="stable")[:20]

    loader = DataLoader(Rare(), 10, validation_split=0.5, sampler=rare_first)
    held_out = drawn(loader.validation())
    assert sorted(held_out) == held_out
    assert len(held_out) == 50
    assert len(loader) == 2
    train = drawn(loader)
    assert not set(train) & set(held_out)
    labels = Rare().labels[train]
    assert labels.tolist() == sorted(labels, reverse=True)


@examples(100)
@given(st.integers(1, 30), st.integers(1, 70), st.booleans(), st.integers(1, 9), st.data())
def test_an_epoch_is_the_next_examples_of_one_pass_after_the_other(
    examples, length, shuffle, batch_size, data
):
    batch_size = min(batch_size, length)
    loader = DataLoader(WholeNumbers(examples), batch_size, shuffle, examples_per_epoch=length)
    epochs = [drawn(loader, epoch) for epoch in range(1, 6)]
    assert {len(one) for one in epochs} == {length}
    whole = DataLoader(WholeNumbers(examples), 1, shuffle)
    count = 1 + 5 * length // examples
    passes = np.concatenate([drawn(whole, number + 1) for number in range(count)])
    assert np.concatenate(epochs).tolist() == passes[: 5 * length].tolist()
    start = data.draw(st.integers(0, len(loader) - 1))
    rest = np.concatenate([batch["inputs"][:, 0] for batch in loader.batches(3, start)])
    assert rest[: length - start * batch_size].tolist() == epochs[2][start * batch_size :]


def test_drop_last_leaves_out_what_would_be_padded_and_other_examples_each_epoch():
    loader = DataLoader(WholeNumbers(25), 10, shuffle=True, drop_last=True)
    assert len(loader) == 2
    assert loader.examples == 20
    assert all(batch["weight"].all() for batch in loader.batches(1))
    assert set(drawn(loader, 1)) != set(drawn(loader, 2))
    held_out = DataLoader(WholeNumbers(25), 10, drop_last=True, validation_split=7).validation()
    assert len(drawn(held_out)) == held_out.examples == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": "blanced"}, "cannot read weights.*blanced"),
        ({"sampler": [1.0]}, r"weights of shape \(1,\); expected \(100,\)"),
        ({"sampler": [-1.0] * 100}, r"weight 0 is -1\.0; expected numbers of at least 0"),
        ({"sampler": [float("nan")] * 100}, "weight 0 is nan"),
        ({"sampler": [0] * 100}, "all weights are 0"),
        ({"sampler": ["a"] * 100}, "cannot read weights"),
        ({"sampler": lambda labels, epoch, seed: [100]}, "from 100 to 100; expected 0 to 99"),
        ({"sampler": lambda labels, epoch, seed: [-1]}, "from -1 to -1"),
        ({"sampler": lambda labels, epoch, seed: []}, "expected indices of examples"),
        ({"sampler": lambda labels, epoch, seed: [0.5]}, "float64"),
        ({"sampler": lambda *_: np.random.permutation(100)}, "other indices when it was called ag"),
        ({"examples_per_epoch": 0}, "examples_per_epoch is 0"),
        ({"examples_per_epoch": 9.5}, r"examples_per_epoch is 9\.5"),
        ({"examples_per_epoch": 9}, "only 9 examples"),
        ({"drop_last": 1}, "drop_last is 1; expected true or false"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        DataLoader(WholeNumbers(100), **{"batch_size": 10, **arguments})


def test_a_sampler_that_returns_fewer_in_a_later_epoch_is_refused():
    loader = DataLoader(
        WholeNumbers(100), 10, sampler=lambda labels, epoch, seed: [0] * (20 - epoch)
    )
    assert len(drawn(loader)) == 19
    with pytest.raises(UserError, match="18 indices for epoch 2, and 19 for the first"):
        loader.batches(2)


def test_balanced_takes_labels_that_are_texts():
    labels = np.array(["cat"] * 9 + ["dog"])
    assert sorted(np.unique(labels[balanced(labels, 1, 0)], return_counts=True)[1]) == [5, 5]


def test_balanced_needs_classes():
    class Regression(WholeNumbers):
        labels = np.zeros(100, np.float32)

    with pytest.raises(UserError, match=r"the targets are float32 \(100,\); expected a class"):
        DataLoader(Regression(100), 10, sampler="balanced")


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("ballanced", "sampler.name: no sampler 'ballanced' in .*; did you mean 'balanced'"),
        ({"name": "balanced", "args": {"power": 2}}, "balanced takes no argument 'power'"),
        ([1, 2], r"weights of shape \(2,\)"),
    ],
)
def test_a_sampler_that_does_not_exist_is_refused_with_its_place(
    sampler, message, run, config, capsys
):

    config["data_loader"]["train"]["args"]["sampler"] = sampler
    assert run("--check")[0] == 1
    assert re.search(message, capsys.readouterr().err)


def test_validation_data_of_their_own_take_the_place_of_a_split(config, write_config):
    loaders = config["data_loader"]
    own = copy.deepcopy(loaders["test"])
    own["args"] |= {"batch_size": 60}
    loaders["validation"] = own
    experiment = build(read_config(write_config(config)))
    assert list(experiment.loaders) == ["train", "validation", "test"]
    assert experiment.loaders["validation"].batch_size == 60
    loaders["train"]["args"]["validation_split"] = 0.1
    with pytest.raises(UserError, match=r"there is data_loader\.validation as well"):
        build(read_config(write_config(config)))


@pytest.mark.parametrize("wrong", [{"sampler": "balanced"}, {"drop_last": True}])
def test_the_test_set_is_read_as_a_whole_or_refused(wrong, run, config, capsys):
    config["data_loader"]["test"]["args"] |= wrong
    assert run("--check")[0] == 1
    assert "not every example of the test set counts once" in capsys.readouterr().err
