"""What a run survives, on record and to the bit; the long versions are in benchmarks/faults.py."""

import json
import shutil
import subprocess
import sys

import pytest

from benchmarks import faults_files
from tests.helpers.project import ROOT, by_set, same_arrays
from training.checkpoint.naming import best, latest, numbered
from training.checkpoint.reading import read
from training.checkpoint.single_file import write
from training.engine.progress import Progress
from training.provenance.record import data_checksum, read_record
from training.report import compare
from utils import UserError

# ---- kills, interrupts, disks ----


@pytest.mark.parametrize(
    "ended",
    by_set(["in mid-copy"], ["after the config", "in the first epoch", "in mid-copy"]),
)
def test_a_run_killed_before_its_first_checkpoint_begins_anew_in_its_folder(
    run, config, ended, monkeypatch
):
    _, whole = run()
    expected = (whole / "metrics.jsonl").read_bytes(), read(latest(whole))[0]
    for path in [*numbered(whole), best(whole), whole / "report.html"]:
        path.unlink()
    if ended == "after the config":
        for path in whole.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.name != "config.json" and path.unlink()
    if ended == "in mid-copy":
        (whole / "model").rename(whole / "model.0123abcd.tmp")
        (whole / "model.0123abcd.tmp" / "model.py").write_text("def half(")
        (whole / "config.json.0123abcd.tmp").write_text("{")
    code, folder = run("--resume", str(whole))
    assert (code, folder) == (0, whole)
    assert (whole / "metrics.jsonl").read_bytes() == expected[0]
    assert same_arrays(read(latest(whole))[0], expected[1])
    assert not list(whole.glob("*.tmp"))


# ---- bad files ----


def test_corrupted_checkpoints_are_refused_quickly_in_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(faults_files, "WANTED", 5)  # seconds; the benchmark has the true limit
    assert faults_files.checkpoints(tmp_path, 500)["refused, of them all"].endswith("of 500")


def test_mutated_idx_files_and_pictures_are_read_or_refused_in_words(tmp_path):
    counts = faults_files.data(tmp_path, 400)
    assert counts["IDX, refused"] > 0
    assert counts["PNG, refused"] > 0


def test_a_checkpoint_of_something_else_is_refused(run, config, capsys):
    _, folder = run("training.epochs=1")
    arrays, meta = read(latest(folder))
    write(folder / "checkpoint-epoch_7.params", arrays, {"notes": "of another program"})
    capsys.readouterr()
    assert run("--resume", str(folder))[0] == 1
    error = capsys.readouterr().err
    assert "checkpoint-epoch_7.params: says nothing of how far a run has come" in error
    for wrong in ({"epochs": -1}, {"files": {"a": "b"}}, {"best": "x"}, {"epoch": {"loss": 1}}):
        with pytest.raises(UserError):
            Progress.from_meta(meta | wrong)
    assert Progress.from_meta(meta).meta() == meta


def test_what_the_network_does_not_take_is_told_before_the_run_begins(run, config, capsys):
    for wrong, words in [
        ("training.optimizer.args.b2=[1]", "training/optimizers.py"),
        ("model.args.feat_dims=[[8]]", "model/model.py"),
        ("data_loader.preprocess.args.std=[]", "ZeroDivisionError"),
    ]:
        code, folder = run(wrong)
        error = capsys.readouterr().err
        assert (code, folder) == (1, None)
        assert words in error
        assert "Traceback" not in error


# ---- the record ----


def test_everything_that_changed_since_is_told_on_resuming(run, config, mnist, tmp_path, capsys):
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
    (folder / "environment.json").write_text(json.dumps(record))
    # in a process of its own, which reads the code anew
    done = subprocess.run(
        [sys.executable, "train.py", "--resume", folder, "training.epochs=2"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [line.partition("last started: ")[2] for line in done.stdout.splitlines()]
    for start in (
        "config.training.epochs: was 1, is 2", "data.train: was ", "code.model/model.py: was ",
        "code.training/loss.py: was 00000000", "git_revision: was an older one",
        "packages.numpy: was 0.1", "device: was 8 × TPU",
    ):  # fmt: skip
        assert any(line.startswith(start) for line in told), (start, told)
    assert not any(line.startswith("data.test") for line in told)
    assert json.loads((folder / "1-environment.json").read_text()) == record


class Examples:
    """A loader of numbers, by chance others each time if `noise` is set."""

    def __init__(self, values, noise=False):
        self.dataset, self.noise, self.reads = values, noise, 0

    def read(self, indices):
        """Returns a batch."""
        self.reads += self.noise
        return {"inputs": self.dataset[indices] + self.reads, "targets": indices}


def test_data_without_a_checksum_are_told_apart_by_a_few_examples():
    import numpy as np

    same, other = np.arange(10.0), np.arange(10.0)
    other[5] += 1
    assert data_checksum(Examples(same)) == data_checksum(Examples(same.copy()))
    assert data_checksum(Examples(same)) != data_checksum(Examples(other))
    assert data_checksum(Examples(same)) != data_checksum(Examples(np.arange(11.0)))
    assert data_checksum(Examples(same, noise=True)) == "not repeatable"


def test_two_runs_are_compared_in_a_table(run, config, capsys):
    _, first = run()
    _, again = run()
    _, other = run("seed=1", "training.epochs=1")
    assert compare.main([str(first), str(again), str(other)]) in (0, None)
    table = capsys.readouterr().out
    table = table[table.rindex(first.name + "  ") :] if first.name in table else table
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line.strip()}
    assert rows["seed"] == ["0", "0", "1"]
    assert rows["training.epochs"] == ["2", "2", "1"]
    assert "training.save_period" not in rows
    ends = [json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]) for run in
            (first, again, other)]  # fmt: skip
    assert rows["test_loss"] == [str(end["test_loss"]) for end in ends]
    assert f"{again.name}: its metrics are the same to the bit" in table
    assert f"{again.name}: its latest checkpoint holds the same bits" in table
    assert f"{other.name}: its figures are others from step 1 on" in table
    assert compare.main([str(first)]) == 1
    assert compare.main([str(first), str(first / "model")]) == 1


# ---- determinism ----
