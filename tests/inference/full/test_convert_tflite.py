"""convert_tflite.py exports files that compute the same, or says why it cannot."""

import pytest

from inference import convert_tflite
from inference.export import converter
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
