"""Exports that take long: made again, refused for ONNX, refused for TFLite."""

import json
import shutil

import numpy as np

from inference import convert_tflite
from inference.verify.runtimes import load
from tests.helpers.exports import LENIENT, QUANTIZED
from tests.helpers.project import ROOT


def test_exporting_again_from_another_folder_gives_the_same_bytes(
    script, small_run, small_export, tmp_path
):
    first = tmp_path / "small"
    shutil.copytree(small_export, first)
    command = [ROOT / "inference" / "convert_tflite.py", "--name", "small", "-w", small_run]
    refused = script(*command, "--into", ".", cwd=tmp_path)
    assert refused.returncode == 1
    assert "--overwrite" in refused.stderr
    again = script(
        *command, "--into", ".", "--overwrite", "--input", "(1, 1, 28, 28)",
        "--quantize", *QUANTIZED, *LENIENT, cwd=tmp_path,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""  # no output of TensorFlow
    assert "Look at small/report.html" in again.stdout
    files = sorted(path.name for path in small_export.glob("small*"))
    assert files == sorted(path.name for path in first.glob("small*"))
    for name in files:
        assert (first / name).read_bytes() == (small_export / name).read_bytes(), name


def test_a_static_export_of_preprocessed_inputs_computes_the_same(
    train_network, network_of, mnist_images, tmp_path
):
    run = train_network(tmp_path, "running_product")
    arguments = ["--name", "sums", "-w", str(run), "--into", str(tmp_path)]
    assert convert_tflite.main([*arguments, "--preprocess", "outside", "--static", "4"]) == 0
    images = mnist_images[:4, None]
    normalised = (images.astype(np.float32) / 255 - 0.1307) / 0.3081
    wanted = np.asarray(network_of(run)(images))
    for suffix in ("tflite", "onnx"):
        loaded = load(tmp_path / "sums" / f"sums.{suffix}")
        assert loaded.inputs == {"input": ((4, 1, 28, 28), np.float32)}
        np.testing.assert_allclose(
            loaded.run({"input": normalised})["logits"], wanted, atol=2e-5 * np.abs(wanted).max()
        )


def test_what_one_format_refuses_takes_no_other_along(train_network, tmp_path, capsys):
    run = train_network(tmp_path, "seven_dimensions")
    arguments = ["--name", "net", "-w", str(run), "--into", str(tmp_path / "into")]
    assert convert_tflite.main(arguments) == 1
    folder = tmp_path / "into" / "net"
    report = json.loads((folder / "report.json").read_text())
    results = {result["file"]: result for result in report["files"]}
    assert "export_networks.py" in results["net.tflite"]["broken"][0]
    assert not (folder / "net.tflite").exists()
    for name in ("net.onnx", "net.stablehlo"):
        assert results[name]["broken"] == []
        assert (folder / name).exists()
    printed = capsys.readouterr()
    assert "net.tflite: " in printed.out
    assert "a file is missing" in printed.err


def test_a_network_that_sorts_is_exported_to_every_format(train_network, tmp_path):
    run = train_network(tmp_path, "sorting")
    arguments = ["--name", "net", "-w", str(run), "--into", str(tmp_path / "into")]
    assert convert_tflite.main(arguments) == 0


def test_an_export_imports_the_runs_own_copy_of_the_network(script, small_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    with open(run / "model" / "modules" / "__init__.py", "a") as file:
        file.write("\nfrom utils import UserError\nraise UserError('this is the copy')\n")
    command = [ROOT / "inference" / "convert_tflite.py", "--name", "net", "-w", run, "--trust"]
    done = script(*command, "--into", tmp_path / "into")
    assert (done.returncode, done.stderr) == (1, "error: this is the copy\n")


def test_quantised_files_have_the_inputs_and_outputs_of_the_float_file(
    network, small_export, images
):
    wanted = np.asarray(network(images[:7]))
    for kind in QUANTIZED:
        path = small_export / f"small.{kind}.tflite"
        loaded = load(path)
        assert loaded.inputs == {"input": (("batch", 1, 28, 28), np.uint8)}
        assert loaded.outputs == {"logits": (("batch", 10), np.float32)}
        difference = np.abs(loaded.run({"input": images[:7]})["logits"] - wanted).max()
        assert 0 < difference < 0.3 * np.abs(wanted).max()
    assert load(small_export / "small.int8.tflite").operators["QUANTIZE"] > 0
