"""The record of a run's code, data and versions, and the comparison of runs by it."""

import json
import shutil
import subprocess
import sys

import numpy as np

import utils
from tests.helpers.project import ROOT
from training.common.records import changes
from training.provenance.record import code_checksums, data_checksum, read_record


def test_everything_that_changed_since_is_logged_on_resuming(run, config, mnist, tmp_path, capsys):
    config["data_loader"]["train"]["args"]["dataset"]["args"]["root"] = str(tmp_path / "digits")
    shutil.copytree(mnist, tmp_path / "digits")
    _, folder = run("training.epochs=1")
    record = read_record(folder)
    assert record["data"].keys() == {"train", "test"}
    assert {"train.py", "utils.py", "training/loss.py", "model/model.py"} <= record["code"].keys()
    capsys.readouterr()
    run("--resume", str(folder))
    assert "Changed since" not in capsys.readouterr().out

    labels = tmp_path / "digits" / "train-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[20] = (content[20] + 1) % 10
    labels.write_bytes(content)
    with open(folder / "model" / "model.py", "a") as file:
        file.write("\n")
    record["git_revision"], record["packages"]["numpy"] = "an older one", "0.1"
    record["device"], record["code"]["training/loss.py"] = "8 × TPU", "00000000"
    record["code"]["training/engine/step.py"] = "ffffffff"
    (folder / "environment.json").write_text(json.dumps(record))
    # in a process of its own, which imports the code again
    done = subprocess.run(
        [sys.executable, "train.py", "--resume", folder, "training.epochs=2"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    warnings = [line.partition("last started: ")[2] for line in done.stdout.splitlines()]
    for start in (
        "config.training.epochs: was 1, is 2", "data.train: was ", "code.model/model.py: was ",
        "code.training/loss.py: was 00000000", "code.training/engine/step.py: was ffffffff",
        "git_revision: was an older one",
        "packages.numpy: was 0.1", "device: was 8 × TPU",
    ):  # fmt: skip
        assert any(line.startswith(start) for line in warnings), (start, warnings)
    assert not any(line.startswith("data.test") for line in warnings)
    assert json.loads((folder / "1-environment.json").read_text()) == record


class Examples:
    """A loader of numbers, which differ at each reading if `noise` is set."""

    def __init__(self, values, noise=False):
        self.dataset, self.noise, self.reads = values, noise, 0

    def read(self, indices):
        """Returns a batch."""
        self.reads += self.noise
        return {"inputs": self.dataset[indices] + self.reads, "targets": indices}


def test_data_without_a_checksum_are_distinguished_by_a_few_examples():
    same, other = np.arange(10.0), np.arange(10.0)
    other[5] += 1
    assert data_checksum(Examples(same)) == data_checksum(Examples(same.copy()))
    assert data_checksum(Examples(same)) != data_checksum(Examples(other))
    assert data_checksum(Examples(same)) != data_checksum(Examples(np.arange(11.0)))
    assert data_checksum(Examples(same, noise=True)) == "not repeatable"


def test_an_edit_of_a_file_in_a_sub_package_is_noticed(tmp_path, monkeypatch):
    project, run = tmp_path / "project", tmp_path / "run"
    for name in ("data_loader", "training"):
        shutil.copytree(ROOT / name, project / name)
    for name in ("train.py", "utils.py"):
        shutil.copy(ROOT / name, project / name)
    monkeypatch.setattr(utils, "ROOT", project)
    before = code_checksums(run)
    assert before.keys() == {str(path.relative_to(project)) for path in project.rglob("*.py")}
    edited = ["data_loader/transforms.py", "train.py", "training/engine/step.py"]
    for name in edited:
        with open(project / name, "a") as file:
            file.write("\n")
    lines = changes({"code": before}, {"code": code_checksums(run)})
    assert [line.partition(":")[0] for line in lines] == [f"code.{name}" for name in edited]
