"""The loss of the training determines what an export's outputs mean, unless the config says it."""

import pytest

import train
from inference.export.source import find_source
from inference.export.trained import load
from tests.helpers import labelled
from tests.helpers.project import ROOT


def decoded(outputs):
    """An output function of a config: which class, of how many."""
    return {"likeliest": outputs.argmax(-1), "of": 0 * outputs[:, 0] + outputs.shape[-1]}


@pytest.mark.parametrize(
    ("kind", "loss", "output", "expected"),
    [
        ("labels", "cross_entropy", None, ("softmax", "logits", None)),
        ("many", "binary_cross_entropy", None, ("sigmoid", "logits", None)),
        ("one-hot", "softmax_cross_entropy", None, ("softmax", "logits", None)),
        ("one-hot", "mean_squared_error", None, ("none", None, None)),
        ("one-hot", "mean_squared_error", "sigmoid", ("sigmoid", "logits", None)),
        ("labels", "cross_entropy", "none", ("none", None, None)),
        ("labels", "cross_entropy", f"{__name__}:decoded", ("none", None, f"{__name__}:decoded")),
    ],
)
def test_the_metadata_of_an_export_say_what_makes_probabilities(
    tmp_path, monkeypatch, kind, loss, output, expected
):
    monkeypatch.chdir(ROOT)
    config = labelled.small_config(tmp_path, kind=kind)
    config["training"] |= {"loss": loss, "metrics": [], "epochs": 1}
    run = train.fit(config | {"output": output})
    network = load(find_source(run.folder)).network
    said = network.metadata["output"]
    assert (said["kind"], said["name"], said["function"]) == expected
    names = ["likeliest", "of"] if expected[2] else ["logits"] if expected[1] else ["output"]
    assert network.names[1] == names
