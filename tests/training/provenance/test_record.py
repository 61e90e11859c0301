"""The record of a run's code, data and versions, and the comparison of runs by it."""

import shutil

import numpy as np

import utils
from tests.helpers.project import ROOT
from training.common.records import changes
from training.provenance.record import code_checksums, data_checksum


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
