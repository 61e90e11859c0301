"""Outputs of a test set are kept only for a classifier, and never at the cost of the metrics."""

import numpy as np
import pytest

from tests.helpers import labelled
from training.config import read_config
from training.engine import evaluation
from training.engine.build import build
from training.engine.initialize import first_batch


@pytest.fixture
def trained(tmp_path, write_config):
    def make(*settings):
        experiment = build(read_config(write_config(labelled.small_config(*settings))))
        return experiment, experiment.init(first_batch(experiment)).params

    return lambda *settings: make(tmp_path, *settings)


def test_of_what_is_no_classifier_nothing_is_computed(trained):
    experiment, params = trained("Sequences", "padded")
    assert evaluation.predict_classes(experiment._replace(evaluate=None), params) is None


def test_predictions_are_those_of_the_network_in_the_order_of_the_data_set(trained):
    experiment, params = trained()
    predictions = evaluation.predict_classes(experiment, params)
    points = labelled.Points()
    expected, _ = experiment.forward(params, points.x, None, False)
    np.testing.assert_allclose(predictions.logits, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(predictions.targets, points.y)
    np.testing.assert_array_equal(predictions.indices, np.arange(len(points)))


def test_without_memory_for_the_outputs_there_are_still_the_metrics(trained, monkeypatch, caplog):
    def join(kept):
        return np.empty((2**50, 2))  # as NumPy refuses what does not fit

    experiment, params = trained()
    expected = evaluation.predict(experiment, params)[0]
    monkeypatch.setattr(evaluation.KeptOutputs, "join", join)
    results, predictions = evaluation.predict(experiment, params)
    assert (results, predictions) == (expected, None)
    assert "No predictions: the memory does not suffice" in caplog.text
