"""Whole runs of train.py: more epochs, parts of networks, damaged caches, full disks."""

import json
import os
import shutil

import numpy as np

import train
from tests.helpers.project import ROOT, same_arrays
from tests.helpers.tracking import json_lines
from training.checkpoint.naming import latest
from training.checkpoint.reading import read
from training.checkpoint.restore import network_params


def test_a_finished_run_can_be_given_more_epochs(run, config):
    config["training"]["optimizer"] = {"name": "sgd", "args": {"learning_rate": 0.1}}
    _, folder = run("training.epochs=1")
    code, again = run("--resume", str(folder), "training.epochs=2")
    assert (code, again) == (0, folder)
    _, whole = run("training.epochs=2")
    assert same_arrays(read(latest(whole))[0], read(latest(folder))[0])
    assert json.loads((folder / "config.json").read_text())["training"]["epochs"] == 2


def test_pretrained_parameters_of_another_network_are_refused(run, config, capsys):
    _, first = run("training.epochs=1")
    capsys.readouterr()
    code, _ = run(f"training.checkpoint={first}", "model.args.feat_dims=[8,8]")
    error = capsys.readouterr().err
    assert code == 1
    assert "hidden0/kernel" in error
    assert "(784, 16)" in error
    assert "(784, 8)" in error
    assert "hidden1/kernel" in error
    assert len(list(first.parent.iterdir())) == 1  # the second run never began and left nothing


def test_a_part_of_the_pretrained_parameters_can_be_taken(run, config):
    _, first = run("training.epochs=1")
    config["training"]["checkpoint"] = {"path": str(first), "partial": ["hidden0"]}
    config["training"]["optimizer"] = {"name": "sgd", "args": {"learning_rate": 0.0}}
    code, second = run("training.epochs=1", "model.args.feat_dims=[16,8]")
    assert code == 0
    before, after = (network_params(read(latest(run))[0]) for run in (first, second))
    np.testing.assert_array_equal(before["hidden0/kernel"], after["hidden0/kernel"])
    assert after["hidden1/kernel"].shape == (16, 8)


def test_a_run_keeps_and_uses_its_own_network(run, config, script, tmp_path):
    """Editing model/ afterwards breaks neither test.py nor resuming."""
    project = tmp_path / "project"
    for name in ("model", "data_loader", "training"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, project / name, ignore=ignore)
    for name in ("train.py", "test.py", "utils.py", "logger_config.json"):
        shutil.copy(ROOT / name, project)
    (project / "config.json").write_text(json.dumps(config))
    done = script("train.py", "training.epochs=1", "training.save_dir=saved", cwd=project)
    assert done.returncode == 0, done.stderr
    (project / "model" / "model.py").write_text("raise RuntimeError('edited')\n")
    done = script("test.py", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "accuracy @ 0." in done.stdout
    done = script("train.py", "--resume", "latest", "training.epochs=2", cwd=project)
    assert done.returncode == 0, done.stderr


def test_a_full_disk_stops_the_run_and_keeps_what_was_saved(config, write_config, script, tmp_path):
    """The limit on file sizes stands for the disk: the checkpoint does not fit any more."""
    config["training"]["epochs"] = 1
    file = write_config(config)
    code = (
        "import resource, signal, sys, train\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        f"sys.exit(train.main(['-c', {file!r}, 'training.compilation_cache=false']))\n"
    )
    done = script("-c", code)
    assert done.returncode == 1
    assert "checkpoint-best.params" in done.stderr
    assert "Traceback" not in done.stderr
    (folder,) = (tmp_path / "saved").glob("*/*")
    assert not list(folder.glob("*.params*"))


def test_a_damaged_cache_entry_is_removed(config, write_config, script, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = write_config(config)
    first = script("train.py", "-c", file, "training.epochs=1")
    assert first.returncode == 0, first.stderr
    entries = list((tmp_path / "cache").rglob("*-cache"))
    assert entries
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:100])
        os.utime(entry, (0, 0))  # long ago: what is new may be being written
    second = script("train.py", "-c", file, "training.epochs=1")
    assert (second.returncode, second.stderr) == (0, "")
    third = script("train.py", "-c", file, "training.epochs=1")
    assert third.returncode == 0
    whole = [path.stat().st_size > 100 for path in (tmp_path / "cache").rglob("*-cache")]
    assert all(whole)


def test_no_progress_bar_is_written_to_a_pipe(config, write_config, script):
    done = script("train.py", "-c", write_config(config), "training.epochs=1")
    assert done.returncode == 0
    assert "\r" not in done.stdout + done.stderr
    assert "%|" not in done.stdout + done.stderr


def test_a_run_resumes_exactly_from_an_epochs_end(run, trusty):
    _, whole = run()
    expected = (whole / "metrics.jsonl").read_bytes()
    last = read(whole / "checkpoint-epoch_3.params")[0]
    (whole / "checkpoint-epoch_3.params").unlink()
    for checkpoint in ("checkpoint-epoch_2.params", "checkpoint-epoch_1.params"):
        code, folder = run("--resume", str(whole / checkpoint))
        assert (code, folder) == (0, whole)
        assert (folder / "metrics.jsonl").read_bytes() == expected
        assert same_arrays(read(folder / "checkpoint-epoch_3.params")[0], last)
        assert [line["epoch"] for line in json_lines(folder / "timing.jsonl")] == [1, 2, 3]


def test_only_the_latest_checkpoints_and_the_best_are_kept(run, config):
    config["training"] |= {"epochs": 4, "keep": 2}
    _, folder = run()
    assert sorted(path.name for path in folder.glob("*.params")) == [
        "checkpoint-best.params", "checkpoint-epoch_3.params", "checkpoint-epoch_4.params",
    ]  # fmt: skip


BATCHES = 8  # of an epoch of the small data


def test_the_same_config_gives_the_same_bits(run, trusty):
    _, first = run()
    _, second = run()
    assert first != second
    assert (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes()
    assert same_arrays(read(latest(first))[0], read(latest(second))[0])


def test_latest_finds_the_run_written_to_last(run, config, monkeypatch, tmp_path):
    _, folder = run("training.epochs=1")
    monkeypatch.chdir(tmp_path)  # its folder "saved" is the one of the run
    assert train.main(["--resume", "latest", "training.epochs=2"]) == 0
    assert (folder / "checkpoint-epoch_2.params").exists()


def test_a_run_starts_from_pretrained_parameters(run, config):
    _, first = run()
    still = ["training.optimizer.name=sgd", 'training.optimizer.args={"learning_rate": 0.0}']
    _, second = run(f"training.checkpoint={first / 'checkpoint-epoch_2.params'}", *still)
    before, after = (network_params(read(latest(run))[0]) for run in (first, second))
    assert same_arrays(before, after)
    assert read(latest(second))[0]["step"] == 2 * BATCHES  # only the parameters were taken


def test_a_damaged_checkpoint_is_refused_and_the_next_one_named(run, config, capsys):
    _, folder = run()
    damaged = folder / "checkpoint-epoch_2.params"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    capsys.readouterr()
    code, _ = run("--resume", str(folder))
    error = capsys.readouterr().err
    assert code == 1
    assert "checkpoint-epoch_2.params" in error
    assert "checkpoint-epoch_1.params" in error
    assert damaged.read_bytes() == content
    assert run("--resume", str(folder / "checkpoint-epoch_1.params"))[0] == 0


def test_the_best_epoch_is_kept_even_between_two_saves(run, config):
    config["training"] |= {"save_every": "10 epochs", "epochs": 4, "monitor": "max test_accuracy"}
    config["training"]["optimizer"]["args"]["learning_rate"] = 0.02
    _, folder = run()
    ends = [line for line in json_lines(folder / "metrics.jsonl") if "test_accuracy" in line]
    accuracies = [line["test_accuracy"] for line in ends]
    _, meta = read(folder / "checkpoint-best.params")
    assert meta["epochs"] == 1 + int(np.argmax(accuracies))
    assert meta["best"] == max(accuracies)
