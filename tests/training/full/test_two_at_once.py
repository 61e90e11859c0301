"""What other processes and people do to a run folder while a run lives in it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import train
from tests.helpers.project import ROOT, same_arrays
from training.checkpoint import naming
from training.checkpoint.naming import BEST, file_name
from training.checkpoint.reading import read
from training.checkpoint.saver import Saver
from training.checkpoint.single_file import write
from training.common import files, locks
from training.engine import run as engine_run
from utils import UserError, latest_run

OWNER = """
import sys
from pathlib import Path
from training.common.files import atomic_file
with atomic_file(Path(sys.argv[1])) as file:
    file.write(b"half ")
    print("half", flush=True)
    sys.stdin.readline()
    file.write(b"whole")
"""


@pytest.fixture
def writer(tmp_path):
    """A process that has written half of report.html, and writes the rest at a line of input."""
    command, pipe = [sys.executable, "-c", OWNER, tmp_path / "report.html"], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "half\n"
        yield process
        process.kill()


def test_a_run_that_starts_leaves_what_a_living_process_is_writing(writer, tmp_path):
    dead = tmp_path / f"{BEST}.01234567.tmp"
    dead.write_bytes(b"half")
    with Saver(tmp_path):
        assert not dead.exists()
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert writer.wait(60) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_bytes() == b"half whole"


def test_a_run_that_starts_removes_what_a_dead_process_was_writing(writer, tmp_path):
    writer.kill()
    writer.wait()
    assert len(list(tmp_path.iterdir())) == 1
    Saver(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    try_lock, seen = files.try_lock, []

    def removed_first(file):
        if not seen:
            seen.append(file.name)
            files.remove_temporaries(tmp_path)  # by another process
        return try_lock(file)

    monkeypatch.setattr(files, "try_lock", removed_first)
    files.atomic_write(tmp_path / "file", [b"content"])
    assert (tmp_path / "file").read_bytes() == b"content"
    assert not Path(seen[0]).exists()


def test_the_lock_of_a_file_that_was_removed_is_none(tmp_path):
    path = tmp_path / "lock"
    first = locks.open_locked(path)
    assert locks.open_locked(path) is None
    path.unlink()  # by its owner, which then closes it
    with locks.open_locked(path) as second:
        first.close()
        assert locks.open_locked(path) is None
        assert locks.is_at(second, path)


def test_what_is_resumed_is_looked_for_once_the_run_is_locked(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    write(tmp_path / file_name(1), {}, {})
    lock = naming.lock

    def when_the_other_has_ended(folder):
        write(folder / file_name(2), {}, {})
        lock(folder)

    monkeypatch.setattr(naming, "lock", when_the_other_has_ended)
    try:
        assert naming.find_run(tmp_path, to_train=True) == (tmp_path, tmp_path / file_name(2))
        assert locks.open_locked(tmp_path / "train.log") is None
    finally:
        locks.unlock()


def test_a_new_run_is_locked_before_another_process_can_resume_it(run, monkeypatch):
    seen, write_config = [], engine_run.write_config

    def look(config, path):
        seen.append((path.exists(), locks.open_locked(path.with_name("train.log"))))
        write_config(config, path)

    monkeypatch.setattr(engine_run, "write_config", look)
    assert run("training.epochs=1")[0] == 0
    assert seen[0] == (False, None)


def test_latest_is_what_was_trained_last_whatever_the_clock_and_other_commands_say(run, config):
    config["training"]["epochs"] = 1
    _, first = run()
    _, second = run()
    saved = first.parents[1]
    assert latest_run(saved) == second
    future = 2**33
    (first / "report.html").write_text("another command's")
    os.utime(first / "metrics.jsonl", (future, future))
    assert latest_run(saved) == second
    assert train.main(["--resume", str(first), "training.epochs=2"]) == 0
    assert latest_run(saved) == first
    shutil.rmtree(first)
    assert latest_run(saved) == second


@pytest.fixture
def disturbed(config, tmp_path, monkeypatch):
    """Trains, and calls a function of the run folder after the first epoch.

    Returns the exit code and the run folder.
    """
    monkeypatch.chdir(ROOT)
    config["training"]["epochs"] = 3

    def train_with(disturb):
        def callback(run):
            if run.epoch == 1:
                run_folders.append(run.folder)
                disturb(run.folder)

        run_folders = []
        error = None
        try:
            train.fit(config, callbacks=[(callback, "1 epoch")])
        except UserError as caught:
            error = str(caught)
        return run_folders[0], error

    return train_with


@pytest.fixture
def alone(disturbed):
    """The run folder of the same training that nobody disturbs."""
    return disturbed(lambda _: None)[0]


def same_result(folder, alone):
    metrics = [(one / "metrics.jsonl").read_bytes() for one in (folder, alone)]
    return metrics[0] == metrics[1] and same_arrays(
        *(read(one / file_name(3))[0] for one in (folder, alone))
    )


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json", "train.log"])
def test_a_file_that_is_removed_meanwhile_is_written_again(disturbed, alone, name, capsys):
    folder, error = disturbed(lambda folder: (folder / name).unlink())
    output = capsys.readouterr().out
    assert error is None
    assert output.count("another program removed or replaced") == 1
    assert "written again" in output
    assert same_result(folder, alone)
    assert "Finished!" in (folder / "train.log").read_text()
    assert json.loads((folder / "config.json").read_text())["title"] == "MNIST_Sample"
    assert not list(folder.glob("*.tmp"))


def test_metrics_that_are_linked_elsewhere_meanwhile_are_not_written_there(
    disturbed, alone, tmp_path
):
    target = tmp_path / "elsewhere"
    target.write_text("mine")

    def link(folder):
        (folder / "metrics.jsonl").unlink()
        (folder / "metrics.jsonl").symlink_to(target)

    folder, error = disturbed(link)
    assert error is None
    assert target.read_text() == "mine"
    assert same_result(folder, alone)


def test_metrics_that_are_cut_meanwhile_are_reported(disturbed, alone, capsys):
    folder, error = disturbed(lambda folder: os.truncate(folder / "metrics.jsonl", 10))
    output = capsys.readouterr().out
    assert error is None
    assert output.count("another program changed it: it has 10 bytes, training wrote") == 1
    assert (folder / "metrics.jsonl").stat().st_size < (alone / "metrics.jsonl").stat().st_size
    assert same_arrays(read(folder / file_name(3))[0], read(alone / file_name(3))[0])


@pytest.mark.parametrize("instead", ["nothing", "a folder", "a link"])
def test_a_folder_that_is_renamed_meanwhile_is_reported_and_nothing_is_written_elsewhere(
    disturbed, instead, tmp_path, capsys
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def rename(folder):
        folder.rename(tmp_path / "renamed")
        if instead == "a folder":
            folder.mkdir()
        if instead == "a link":
            folder.symlink_to(elsewhere, target_is_directory=True)

    folder, error = disturbed(rename)
    output = capsys.readouterr().out
    assert error == (
        f"{folder}: {'No such file or directory' if instead == 'nothing' else 'another folder'}: "
        "the one in which this run began was renamed or removed. Give it its name again."
    )
    assert "NOT SAVED" in output
    assert list(elsewhere.iterdir()) == []
    assert not folder.exists() or list(folder.iterdir()) == []
    lines = (tmp_path / "renamed" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["epoch"] == 3  # the metrics are those of the renamed run


def test_a_folder_that_is_moved_and_linked_to_is_still_the_same(disturbed, alone, tmp_path):
    def move(folder):
        folder.rename(tmp_path / "larger disk")
        folder.symlink_to(tmp_path / "larger disk", target_is_directory=True)

    folder, error = disturbed(move)
    assert error is None
    assert same_result(folder, alone)


def test_a_folder_that_is_removed_and_made_again_gets_what_follows(disturbed, alone):
    def make_again(folder):
        shutil.rmtree(folder)
        folder.mkdir()

    folder, error = disturbed(make_again)
    assert error is None
    assert same_result(folder, alone)
    assert (folder / "config.json").exists()
