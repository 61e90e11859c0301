"""What a run survives, to the bit; the long versions of these are in benchmarks/faults.py."""

import shutil

import pytest

from benchmarks import faults_files
from tests.helpers.project import by_set, same_arrays
from training.checkpoint.naming import best, latest, numbered
from training.checkpoint.reading import read
from training.checkpoint.single_file import write
from training.engine.progress import Progress
from utils import UserError

# ---- kills ----


@pytest.mark.parametrize(
    "ended",
    by_set(["in mid-copy"], ["after the config", "in the first epoch", "in mid-copy"]),
)
def test_a_run_killed_before_its_first_checkpoint_starts_again_in_its_folder(
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
