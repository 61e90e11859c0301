"""Whole runs of train.py and test.py, on the first examples of the real MNIST."""

import contextlib
import csv
import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios

import numpy as np
import pytest

from tests.helpers.project import ROOT, TEST_EXAMPLES, by_set, same_arrays
from tests.helpers.tracking import json_lines
from training.checkpoint.naming import latest
from training.checkpoint.reading import read
from training.checkpoint.restore import network_params
from training.config import read_config
from training.engine.build import build
from utils import UserError

BATCHES = 8  # of an epoch of the small data


def test_a_run_leaves_what_is_promised(run, config, capsys):
    config["training"]["save_every"] = "2 epochs"
    config["training"]["epochs"] = 3
    code, folder = run()
    assert code == 0
    assert folder.parent.name == "MNIST_Sample"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d+)?", folder.name)
    assert {path.name for path in folder.iterdir()} - {"uncommitted.diff"} == {
        "code.json", "config.json", "model", "train.log", "metrics.jsonl", "timing.jsonl",
        "environment.json",
        "checkpoint-epoch_2.params", "checkpoint-epoch_3.params", "checkpoint-best.params",
        "report.html",
    }  # fmt: skip
    console = capsys.readouterr().out
    assert (folder / "train.log").read_text().strip() == console.strip()
    expected = [
        r"Start Training! \[MNIST_Sample\]",
        r"Training on the CPU \(\d+ cores\)",
        r"Dataloader, Model, Optimizer, Loss function loaded!",
        r"The model has \d+ parameters",
        r"---- STARTING EPOCH 1 ----",
        r"Epoch 1 \[0/8 \(0%\)\] -- Loss: \d\.\d+",
        r"Epoch 1 \[3/8 \(38%\)\] -- Loss: \d\.\d+",
        r"Epoch 1 \[6/8 \(75%\)\] -- Loss: \d\.\d+",
        r"Epoch 1 \[train\] accuracy @ 0\.\d+",
        r"Epoch 1 \[test\] avg Loss: \d\.\d+",
        r"Epoch 1 \[test\] accuracy @ 0\.\d+",
        r"---- Epoch 1 took \d+\.\d\d seconds to complete! ----",
        r"---- STARTING EPOCH 2 ----",
    ]
    time = r"\[main INFO\]    : \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - "
    for line, pattern in zip(console.splitlines(), expected, strict=False):
        assert re.fullmatch(time + pattern, line)


def test_the_metrics_of_an_epoch_are_exact(run, config, mnist):
    """The last line of metrics.jsonl against NumPy on the network's own predictions."""
    config["training"]["metrics"] = [
        {"name": "top_k_accuracy", "args": {"k": 1}},
        {"name": "top_k_accuracy", "args": {"k": 3}},
        "accuracy",
    ]
    code, folder = run()
    assert code == 0
    end = json_lines(folder / "metrics.jsonl")[-1]
    assert end["step"] == 2 * BATCHES
    params = network_params(read(folder / "checkpoint-epoch_2.params")[0])
    labels = np.frombuffer((mnist / "t10k-labels-idx1-ubyte").read_bytes()[8:], np.uint8)
    images = np.frombuffer((mnist / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8)
    from model.model import mlp

    tree = {}
    for name, array in params.items():
        layer, _, leaf = name.partition("/")
        tree.setdefault(layer, {})[leaf] = array
    inputs = (images.reshape(TEST_EXAMPLES, -1) / 255 - 0.1307) / 0.3081
    logits = np.asarray(mlp(inputs.astype(np.float32), [16], params=tree)[0], np.float64)
    assert end["test_accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert end["test_top_k_accuracy(k=1)"] == end["test_accuracy"]
    in_three = ((-logits).argsort(1)[:, :3] == labels[:, None]).any(1)
    assert end["test_top_k_accuracy(k=3)"] == pytest.approx(in_three.mean())
    shifted = logits - logits.max(1, keepdims=True)
    expected = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(TEST_EXAMPLES), labels]
    assert end["test_loss"] == pytest.approx(expected.mean(), rel=1e-5)


def test_update_and_evaluate_compile_once_in_a_run(run, config, monkeypatch):
    from training.engine import run as runs

    made = []
    original = runs.build

    def build(*arguments):
        made.append(original(*arguments))
        return made[-1]

    monkeypatch.setattr(runs, "build", build)
    assert run()[0] == 0
    assert made[0].update._cache_size() == 1
    assert made[0].evaluate._cache_size() == 1


def test_a_collate_function_is_named_in_the_config(config, write_config):
    args = config["data_loader"]["train"]["args"]
    plain = next(build(read_config(write_config(config))).loaders["train"].batches(1))
    args["collate"] = {"name": "tests.helpers.networks:negatives"}
    negative = next(build(read_config(write_config(config))).loaders["train"].batches(1))
    np.testing.assert_array_equal(negative["inputs"], 255 - plain["inputs"])
    args["collate"] = "tests.helpers.networks:negatives"
    with pytest.raises(UserError, match=r'expected a function; in a config \{"name":'):
        build(read_config(write_config(config)))


@pytest.mark.parametrize(
    ("name", "at"),
    by_set([("SIGTERM", 15)], [("SIGINT", 3), ("SIGTERM", 8), ("SIGINT", 11), ("SIGTERM", 15)]),
)
def test_a_run_stopped_by_a_signal_resumes_to_the_same_bits(run, trusty, monkeypatch, name, at):
    _, whole = run()
    monkeypatch.setenv("SIGNAL_AT", f"{name}@{at}")
    code, stopped = run()
    assert code == 128 + getattr(signal, name)
    assert not (stopped / "report.html").exists()
    monkeypatch.delenv("SIGNAL_AT")
    code, resumed = run("--resume", str(stopped))
    assert code == 0
    assert resumed == stopped
    assert (whole / "metrics.jsonl").read_bytes() == (stopped / "metrics.jsonl").read_bytes()
    for checkpoint in ("checkpoint-epoch_3.params", "checkpoint-best.params"):
        assert same_arrays(read(whole / checkpoint)[0], read(stopped / checkpoint)[0])


def test_a_second_signal_ends_the_process_at_once(config, write_config, script, monkeypatch):
    """The first signal is only noted; the second comes before the step is over."""
    code = (
        "import os, signal, training.distributed.preemption as i\n"
        "with i.StopSignal() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(stop.signal, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('too far')\n"
    )
    done = script("-c", code)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "2\n")


def test_training_stops_early_without_a_better_epoch(run, config):
    config["training"] |= {"epochs": 50, "early_stop": 2, "monitor": "max test_accuracy"}
    config["training"]["optimizer"] = {"name": "sgd", "args": {"learning_rate": 0.0}}
    code, folder = run()
    assert code == 0
    assert read(latest(folder))[1]["epochs"] == 3  # the first is the best, then two are not better
    assert (folder / "report.html").exists()


def test_test_py_repeats_the_metrics_of_the_run(run, config, capsys):
    import importlib.util

    spec = importlib.util.spec_from_file_location("evaluation_script", ROOT / "test.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    _, folder = run()
    ends = [line for line in json_lines(folder / "metrics.jsonl") if "test_accuracy" in line]
    (folder / "report.html").unlink()
    capsys.readouterr()
    assert script.main(["-w", str(folder), "--latest", "--predictions"]) == 0
    out = capsys.readouterr().out
    assert f"accuracy @ {ends[-1]['test_accuracy']}\n" in out
    assert f"loss @ {ends[-1]['test_loss']}\n" in out
    assert (folder / "report.html").exists()
    with open(folder / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    right = np.mean([row["prediction"] == row["target"] for row in rows])
    assert len(rows) == TEST_EXAMPLES
    assert right == pytest.approx(ends[-1]["test_accuracy"])

    assert script.main(["-w", str(folder)]) == 0
    best = max(ends, key=lambda line: line["test_accuracy"])
    assert f"accuracy @ {best['test_accuracy']}\n" in capsys.readouterr().out
    assert script.main(["-w", str(folder / "nowhere.params")]) == 1
    assert "nowhere.params" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_reported_at_once(run, config, capsys, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    code, _ = run(f"training.save_dir={tmp_path / 'file'}")
    assert code == 1
    assert "cannot write a run there: Not a directory" in capsys.readouterr().err


def test_bad_input_is_one_message_without_a_traceback(run, config, capsys, mnist, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(mnist, broken)
    file = broken / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:5000])
    root = "data_loader.train.args.dataset.args.root="
    for arguments, message in [
        ((root + str(broken),), "train-images-idx3-ubyte"),
        ((root + str(tmp_path / "nowhere"),), "nowhere"),
        (("data_loader.train.args.batch_size=5000",), "5000"),
        (
            ("model.args.feat_dim=[8]",),
            "mlp takes no argument 'feat_dim'; did you mean 'feat_dims'?",
        ),
        (("training.optimizer.args.momentum=1",), "adamw takes no argument 'momentum'"),
        (("training.monitor=max test_acuracy",), "did you mean 'test_accuracy'?"),
        (("training.checkpoint=nowhere.params",), "nowhere.params"),
        (("training.accumulate=3",), "training.accumulate: 3 pieces do not divide a batch of 128"),
        (("--resume", str(tmp_path / "no run")), "no run"),
    ]:
        code, _ = run(*arguments)
        error = capsys.readouterr().err
        assert code == 1, arguments
        assert message in error
        assert error.startswith("error: ")
        assert "Traceback" not in error
    assert not list((tmp_path / "saved").glob("*/*"))  # no run that never began is left behind


def test_a_logging_config_that_does_not_fit_is_one_message(run, monkeypatch, capsys, tmp_path):
    (tmp_path / "logger_config.json").write_text('{"version": 2, "handlers": {}}')
    monkeypatch.setattr("utils.ROOT", tmp_path)
    code, folder = run()
    assert (code, folder) == (1, None)
    error = capsys.readouterr().err
    assert re.search(r"error: .*logger_config.json: .* not take it: .*version", error)


def test_train_imports_neither_tensorflow_nor_wandb(config, write_config, script):
    file = write_config(config)
    code = (
        f"import sys, train; code = train.main(['-c', {file!r}, 'training.epochs=1'])\n"
        "print(code, sorted({'tensorflow', 'wandb', 'torch', 'tensorboardX'} & set(sys.modules)))"
    )
    assert script("-c", code).stdout.endswith("0 []\n")


def test_a_terminal_gets_a_progress_bar(config, write_config):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))  # rows, columns
    command = [sys.executable, str(ROOT / "train.py"), "-c", write_config(config)]
    output = b""
    with subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # what Linux says at the end of a terminal
            while data := os.read(ours, 4096):
                output += data
    os.close(ours)
    text = output.decode()
    assert process.returncode == 0, text
    assert re.search(r"Epoch 1: +\d+%\|", text)
    assert re.search(r"\[\d\d:\d\d left, .+ examples/s, loss \d", text)
    assert "\033[1m---- STARTING EPOCH 2" in text
