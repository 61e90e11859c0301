"""A validation split that has every class in proportion."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit

from data_loader.dataloader import DataLoader
from tests.helpers.project import examples


class Labelled:
    def __init__(self, labels):
        self.labels = np.asarray(labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return np.float32(index), self.labels[index]


def split(labels, count, **args):
    """The examples to train on and those held out."""
    loader = DataLoader(Labelled(labels), 1, validation_split=count, **args)
    held_out = loader.validation()
    return [
        np.concatenate([one.batch_indices(1, number) for number in range(len(one))])
        for one in (loader, held_out)
    ]


@examples(200)
@given(
    labels=st.lists(st.integers(-2, 4), min_size=2, max_size=60),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_every_class_is_held_out_in_proportion_and_each_example_is_in_one_split(
    labels, share, seed
):
    labels, count = np.array(labels), max(1, min(len(labels) - 1, round(share * len(labels))))
    train, held_out = split(labels, count, seed=seed)
    assert len(held_out) == count
    assert sorted([*train, *held_out]) == list(range(len(labels)))
    _, again = split(labels, count, seed=seed)
    assert held_out.tolist() == again.tolist()
    sizes = {label: (labels == label).sum() for label in set(labels.tolist())}
    if all(size - count * size / len(labels) >= 1 for size in sizes.values()):
        for label, size in sizes.items():
            assert abs((labels[held_out] == label).sum() - count * size / len(labels)) < 1
    if count <= len(labels) - len(sizes):  # then each class keeps an example
        assert set(labels[train].tolist()) == set(sizes)


def test_the_numbers_of_each_class_are_those_of_scikit_learn():
    labels = np.repeat([0, 1, 2, 3], [100, 50, 30, 20])
    _, held_out = split(labels, 40)
    splitter = StratifiedShuffleSplit(1, test_size=40, random_state=0)
    ((_, expected),) = splitter.split(labels, labels)
    assert np.bincount(labels[held_out]).tolist() == np.bincount(labels[expected]).tolist()


def test_the_seed_chooses_which_and_labels_may_be_texts():
    labels = ["a"] * 50 + ["b"] * 50
    chosen = [split(labels, 0.2, seed=seed)[1].tolist() for seed in (0, 1)]
    assert chosen[0] != chosen[1]
    assert [sum(one < 50 for one in some) for some in chosen] == [10, 10]


def test_without_labels_or_with_stratify_false_it_is_by_chance_as_it_always_was():
    labels = np.repeat([0, 1], 50)
    by_chance = np.random.Generator(np.random.Philox(key=[3, 0])).permutation(100)[:20]
    _, held_out = split(labels, 20, seed=3, stratify=False)
    assert sorted(by_chance) == held_out.tolist()
    _, without = split(np.zeros((100, 2)), 20, seed=3)  # of several labels each
    assert sorted(by_chance) == without.tolist()
