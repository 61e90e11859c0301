"""A network with more or fewer outputs than classes."""

import pytest

import train
from tests.helpers.project import ROOT, by_set


@pytest.mark.parametrize(("classes", "warned"), by_set([(12, True)], [(10, False), (12, True)]))
def test_a_network_with_more_or_fewer_outputs_than_classes_is_reported(
    config, write_config, monkeypatch, capsys, classes, warned
):
    monkeypatch.chdir(ROOT)
    path = write_config(config)
    overrides = [f"model.args.classes={classes}", "training.epochs=1"]
    assert train.main(["-c", path, *overrides]) == 0
    printed = "".join(capsys.readouterr())
    words = "The network has 12 outputs, but the data set 10 classes (0, 1, 2, 3, 4, ...)"
    assert (words in printed) == warned
