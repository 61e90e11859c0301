"""The targets and the loss of the training determine what the outputs of an export mean."""

import pytest

import train
from inference.export.source import find_source
from inference.export.trained import load
from tests.helpers import labelled
from tests.helpers.project import ROOT


@pytest.mark.parametrize(
    ("kind", "loss", "expected"),
    [
        ("labels", "cross_entropy", "softmax"),
        ("many", "binary_cross_entropy", "sigmoid"),
        ("one-hot", "softmax_cross_entropy", "softmax"),
        ("one-hot", "mean_squared_error", None),
    ],
)
def test_the_metadata_of_an_export_say_what_makes_probabilities(
    tmp_path, monkeypatch, kind, loss, expected
):
    monkeypatch.chdir(ROOT)
    config = labelled.small_config(tmp_path, kind=kind)
    config["training"] |= {"loss": loss, "metrics": [], "epochs": 1}
    run = train.fit(config)
    assert load(find_source(run.folder)).network.metadata["probabilities"] == expected
