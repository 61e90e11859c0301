"""What a run survives, to the bit; the long versions of these are in benchmarks/faults.py."""

import pytest

from benchmarks import faults_files
from tests.helpers.project import by_set
from training.checkpoint.naming import latest
from training.checkpoint.reading import read
from training.checkpoint.single_file import write
from training.engine.progress import Progress
from utils import UserError

# ---- kills ----


# ---- bad files ----


def test_corrupted_checkpoints_are_refused_quickly_in_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(faults_files, "WANTED", 5)  # seconds; the benchmark has the true limit
    count = by_set(100, 500)
    refused = faults_files.checkpoints(tmp_path, count)["refused, of them all"]
    assert refused.endswith(f"of {count}")


def test_mutated_idx_files_and_images_are_read_or_refused_in_words(tmp_path):
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
    assert "checkpoint-epoch_7.params: does not say how far a run has come" in error
    for wrong in ({"epochs": -1}, {"files": {"a": "b"}}, {"best": "x"}, {"epoch": {"loss": 1}}):
        with pytest.raises(UserError):
            Progress.from_meta(meta | wrong)
    assert Progress.from_meta(meta).meta() == meta


def test_arguments_that_do_not_fit_are_refused_before_the_run_begins(run, config, capsys):
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
