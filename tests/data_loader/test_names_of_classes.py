"""The names of a data set's classes, in whatever form it gives them."""

import numpy as np
import pytest

import train
from data_loader.labels import names_of_classes
from tests.helpers import labelled
from utils import UserError


class Named(labelled.Points):
    """Points with `classes` as they are given."""

    given = None

    def __init__(self, **args):
        super().__init__(**args)
        if self.given is not None:
            self.classes = self.given


@pytest.mark.parametrize(
    ("given", "names"),
    [(["a", "b"], ["a", "b"]), (("a", "b"), ("a", "b")), (np.array(["a", "b"]), ["a", "b"]),
     (2, ["0", "1"]), (np.int64(2), ["0", "1"]), (None, None)],
)  # fmt: skip
def test_names_and_a_number_of_classes_are_understood(monkeypatch, given, names):
    monkeypatch.setattr(Named, "given", given)
    assert names_of_classes(Named()) == names


@pytest.mark.parametrize("given", [{"a": 0}, {"a", "b"}, "ab", 0, -1, True, 2.5, np.zeros((2, 2))])
def test_anything_else_is_refused_in_words(monkeypatch, given):
    monkeypatch.setattr(Named, "given", given)
    with pytest.raises(UserError, match="the data set Named: its attribute `classes` is"):
        names_of_classes(Named())


def test_a_run_takes_the_number_and_refuses_the_rest(fit, monkeypatch):
    monkeypatch.setattr(Named, "given", 3)
    assert 0 <= fit().metrics["test_accuracy"] <= 1
    monkeypatch.setattr(Named, "given", {"a": 0})
    with pytest.raises(UserError, match="expected the names of the classes"):
        fit()


@pytest.fixture
def fit(tmp_path):
    """Trains a run on `Named`."""

    def fit():
        config = labelled.small_config(tmp_path)
        for split in ("train", "test"):
            name = f"{Named.__module__}:Named"
            config["data_loader"][split]["args"]["dataset"]["name"] = name
        return train.fit(config)

    return fit
