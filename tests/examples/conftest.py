"""What the tests of the examples share."""

import pytest

from inference.export import worker
from tests.helpers.kept_worker import kept_worker


@pytest.fixture(autouse=True)
def one_tensorflow(monkeypatch):
    """Has exports share the process in which TensorFlow is; tests/inference starts one for each."""
    monkeypatch.setattr(worker, "Worker", kept_worker)
