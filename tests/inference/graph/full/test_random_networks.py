"""Random networks of any primitives are equal in ONNX, or refused with their line.

benchmarks/export_random.py tries more of them, and the other formats.
"""

import collections

import hypothesis

from benchmarks.export_random import try_network
from tests.helpers.random_networks import names


def test_a_random_network_is_equal_in_onnx_or_refused_with_its_line(tmp_path, capsys):
    counts = collections.Counter()

    @hypothesis.settings(
        max_examples=40, derandomize=True, deadline=None, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(names)
    def run(names):
        try_network(names, tmp_path, None, ("onnx",), counts)

    run()
    assert not [verdict for verdict in counts if "error" in verdict], capsys.readouterr().out
    assert counts["onnx, equal"] > 20
