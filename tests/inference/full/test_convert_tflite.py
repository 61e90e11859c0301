"""convert_tflite.py exports files that compute the same, or says why it cannot."""

import jax
import numpy as np
import pytest

from inference import convert_tflite
from inference.export import converter, trained
from inference.export.source import find_source
from tests.helpers.processes import crash


@pytest.fixture
def arguments(small_run, tmp_path):
    """The arguments of an export into an empty folder."""
    return ["--name", "net", "-w", str(small_run), "--into", str(tmp_path / "into")]


def test_a_crash_inside_tensorflow_is_one_message_and_an_earlier_export_stays(
    arguments, no_tensorflow, monkeypatch, tmp_path, capsys
):
    earlier = tmp_path / "into" / "net"
    earlier.mkdir(parents=True)
    (earlier / "net.onnx").write_text("the earlier one")
    monkeypatch.setattr(converter, "to_tflite", crash)
    assert convert_tflite.main([*arguments, "--overwrite"]) == 1
    assert "its process was killed by SIGSEGV" in capsys.readouterr().out
    assert [path.name for path in earlier.iterdir()] == ["net.onnx"]
    assert (earlier.with_name("net.rejected") / "net.stablehlo").exists()
    assert not [path for path in earlier.parent.iterdir() if path.name.endswith(".tmp")]


def test_parameters_that_no_file_holds_are_refused_before_the_conversion(
    arguments, no_tensorflow, monkeypatch, capsys
):
    monkeypatch.setattr(trained, "MOST_BYTES", 100)
    assert convert_tflite.main(arguments) == 1
    assert "a .tflite, .onnx or .stablehlo file holds at most" in capsys.readouterr().err


def test_a_network_trained_in_64_bits_is_exported_in_32(train_network, tmp_path):
    jax.config.update("jax_enable_x64", True)
    try:
        run = train_network(tmp_path, "sorting")
        network = trained.load(find_source(run)).network
    finally:
        jax.config.update("jax_enable_x64", False)
    (logits,) = jax.eval_shape(network.function, np.zeros((2, 1, 28, 28), np.uint8))
    assert logits.dtype == np.float32
    assert network.metadata["outputs"]["logits"]["dtype"] == "float32"
