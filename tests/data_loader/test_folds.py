"""Folds: the properties of scikit-learn's splitters, and what is refused."""

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, StratifiedKFold

from data_loader.dataloader import DataLoader
from data_loader.sources.tables import Table
from tests.helpers.project import examples
from utils import UserError


class Patients:
    """Examples with labels and patients."""

    def __init__(self, labels, patients=None):
        self.labels, self.patients = np.asarray(labels), np.asarray(patients)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return np.float32(index), self.labels[index]


class Stream:
    """Examples without a length."""

    def __iter__(self):
        yield np.float32(1), np.int32(0)


def split(dataset, fold, folds, **args):
    """The examples to train on and those held out."""
    loader = DataLoader(dataset, 1, fold=fold, folds=folds, **args)
    return loader.indices, loader.validation().indices


def parts(dataset, folds, **args):
    """The examples held out by each fold, which with the others are all examples."""
    found = []
    for fold in range(folds):
        train, held_out = split(dataset, fold, folds, **args)
        assert sorted([*train, *held_out]) == list(range(len(dataset)))
        found.append(held_out)
    assert sorted(np.concatenate(found)) == list(range(len(dataset)))  # each in one fold
    return found


@examples(100)
@given(
    labels=st.lists(st.integers(-2, 3), min_size=6, max_size=50),
    folds=st.integers(2, 6),
    seed=st.integers(0, 5),
)
def test_every_example_is_in_one_fold_and_classes_are_even(labels, folds, seed):
    labels = np.array(labels)
    found = parts(Patients(labels), folds, seed=seed)
    for one, again in zip(found, parts(Patients(labels), folds, seed=seed), strict=True):
        np.testing.assert_array_equal(one, again)
    sizes = [len(one) for one in found]
    assert max(sizes) - min(sizes) <= 1
    for label in set(labels.tolist()):
        counts = [(labels[one] == label).sum() for one in found]
        assert max(counts) - min(counts) <= 1


def test_the_class_counts_are_those_of_scikit_learn():
    labels = np.repeat(["cat", "dog", "rare"], [52, 33, 7])
    judge = StratifiedKFold(4, shuffle=True, random_state=0).split(labels, labels)
    theirs = [
        [(labels[held_out] == one).sum() for one in np.unique(labels)] for _, held_out in judge
    ]
    ours = [[(labels[held_out] == one).sum() for one in np.unique(labels)]
            for held_out in parts(Patients(labels), 4)]  # fmt: skip
    assert np.abs(np.array(sorted(ours)) - np.array(sorted(theirs))).max() <= 1


def test_another_seed_has_other_folds_and_stratify_can_be_turned_off():
    dataset = Patients(np.repeat([0, 1], 50))
    assert parts(dataset, 5, seed=0)[0].tolist() != parts(dataset, 5, seed=1)[0].tolist()
    uneven = [dataset.labels[one].sum() for one in parts(dataset, 5, stratify=False)]
    assert max(uneven) - min(uneven) > 1


@examples(60)
@given(
    patients=st.lists(st.integers(0, 8), min_size=12, max_size=60),
    folds=st.integers(2, 4),
    seed=st.integers(0, 3),
)
def test_a_patient_is_in_one_fold_and_the_folds_are_about_as_even_as_scikit_learns(
    patients, folds, seed
):
    patients = np.array(patients)
    dataset = Patients(np.zeros(len(patients), int), patients)
    if len(set(patients.tolist())) < folds:
        with pytest.raises(UserError, match=r"folds is \d, but there are only \d groups"):
            parts(dataset, folds, groups="patients")
        return
    found = parts(dataset, folds, groups="patients", seed=seed)
    held_out_of = [set(patients[one].tolist()) for one in found]
    assert sum(map(len, held_out_of)) == len(set(patients.tolist()))
    theirs = [len(one) for _, one in GroupKFold(folds).split(patients, groups=patients)]
    assert max(map(len, found)) <= max(theirs) + np.bincount(patients).min()


def test_the_classes_of_patients_are_spread_over_the_folds():
    patients = np.repeat(np.arange(30), 4)
    labels = (patients % 3 == 0).astype(int)
    found = parts(Patients(labels), 5, groups=patients.tolist())
    assert [labels[one].sum() for one in found] == [8] * 5
    assert [len(one) for one in found] == [24] * 5


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            {"fold": 3, "folds": 3},
            "fold is 3 and folds 3; expected of folds .* from 0 to folds - 1",
        ),
        ({"fold": -1, "folds": 3}, "fold is -1 and folds 3"),
        ({"fold": 0}, "fold is 0 and folds None; expected"),
        ({"folds": 3}, "fold is None and folds 3"),
        ({"fold": 0, "folds": 1}, "expected of folds a whole number from 2"),
        ({"fold": 0, "folds": 7}, "from 2 to the number of examples, 6"),
        ({"fold": True, "folds": 3}, "fold is True"),
        ({"fold": "0", "folds": 3}, "fold is '0'"),
        ({"fold": 0, "folds": 3, "validation_split": 0.2}, "fold 0 of 3 is held out; expected one"),
        ({"groups": "patients"}, "groups are kept together in folds; give fold and folds"),
        ({"fold": 0, "folds": 3, "groups": "patient"}, "groups is 'patient'; expected the name of"),
        ({"fold": 0, "folds": 3, "groups": [1, 2]}, "for each of the 6 examples"),
    ],
)
def test_what_does_not_fit_is_refused(args, words):
    with pytest.raises(UserError, match=words):
        DataLoader(Patients([0, 0, 0, 1, 1, 1], [1, 1, 2, 2, 3, 3]), 1, **args)


def test_a_stream_has_no_folds():
    with pytest.raises(UserError, match="folds needs a data set that is read by index"):
        DataLoader(Stream(), 1, fold=0, folds=3)


def test_a_class_that_is_too_rare_for_the_folds_is_named(caplog):
    parts(Patients([0] * 9 + [1] * 2), 3)
    assert "class 1 has 2 examples for 3 folds; some have none of it" in caplog.text


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_column_of_a_table_keeps_its_rows_together_and_is_no_input(tmp_path, ending):
    frame = pandas.DataFrame(
        {"patient": np.arange(40) % 8, "x": np.arange(40.0), "y": ["a", "b"] * 20}
    )
    path = tmp_path / f"t.{ending}"
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path)
    table = Table(path, "y", groups="patient")
    assert table.features == ["x"]
    for held_out in parts(table, 4, groups="groups"):
        assert len(set(held_out % 8)) == 2
        assert len(held_out) == 10
    with pytest.raises(UserError, match="no column 'patients'; did you mean 'patient'"):
        Table(path, "y", groups="patients")
    frame.loc[3, "patient"] = np.nan
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path)
    with pytest.raises(UserError, match="groups: 'patient' lacks the value of some rows"):
        Table(path, "y", groups="patient")
