"""Random networks of any primitives are equal in each format, or refused with their line."""

import collections

import hypothesis

from benchmarks.export_random import try_network
from inference.export.converter import import_tensorflow
from inference.export.worker import Worker
from tests.helpers.random_networks import names


def test_a_random_network_is_equal_in_each_format_or_refused_with_its_line(tmp_path, capsys):
    counts = collections.Counter()
    with Worker(tmp_path / "log", import_tensorflow) as worker:

        @hypothesis.settings(
            max_examples=40, derandomize=True, deadline=None, database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        @hypothesis.given(names)
        def run(names):
            try_network(names, tmp_path, worker, ("onnx", "tflite"), counts)

        run()
    assert not [verdict for verdict in counts if "error" in verdict], capsys.readouterr().out
    assert counts["onnx, equal"] > 20
    assert counts["tflite, equal"] > 20
