"""Whole runs on streams: stopped and killed anywhere, they end with the same bits."""

import io
import json
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from PIL import Image

import test as evaluation
import train
from tests.helpers.project import ROOT, same_arrays
from training.checkpoint.naming import find, latest
from training.checkpoint.reading import read

EPOCHS = 8


@pytest.fixture
def stream_config(tmp_path):
    """A config on tar files of 300 small pictures, and one of 40 for the test."""
    random = np.random.default_rng(0)
    for name, count in (("train-0", 130), ("train-1", 90), ("train-2", 80), ("test-0", 40)):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for index in range(count):
                label = int(random.integers(3))
                picture = io.BytesIO()
                pixels = random.integers(60 * label, 60 * label + 120, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(picture, format="PNG")
                for ending, content in (("png", picture.getvalue()), ("cls", b"%d" % label)):
                    info = tarfile.TarInfo(f"{index:05}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))

    def loader(split, **arguments):
        args = {"shards": f"{tmp_path}/{split}-*.tar", "inputs": "png", "size": [8, 8],
                "classes": ["dark", "grey", "light"]}  # fmt: skip
        dataset = {"name": "TarShards", "args": args}
        return {"name": "DataLoader", "args": {"dataset": dataset, "batch_size": 16} | arguments}

    train_loader = loader(
        "train", shuffle=True, shuffle_window=50, examples_per_epoch=200, workers=2
    )
    return {
        "title": "Stream",
        "model": {"name": "mlp", "args": {"feat_dims": [8], "classes": 3}},
        "data_loader": {
            "train": train_loader,
            "test": loader("test"),
            "preprocess": {"name": "normalize", "args": {"mean": 0.4, "std": 0.3}},
        },
        "training": {
            "loss": "cross_entropy", "metrics": ["accuracy"], "epochs": EPOCHS,
            "optimizer": {"name": "adamw", "args": {"learning_rate": 0.01}},
            "save_dir": str(tmp_path / "whole"), "log_every": "3 steps",
        },
    }  # fmt: skip


def test_a_stopped_and_a_killed_run_end_with_the_bits_of_one_that_was_not(
    stream_config, write_config, tmp_path
):
    stream_config["training"] |= {"save_every": "5 steps", "evaluate_every": "7 steps"}
    path = write_config(stream_config)
    whole = train.fit(path)
    assert whole.metrics["test_accuracy"] > 0.8
    steps = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1]["step"] == EPOCHS * 13  # 12 batches of 16, and one of 8
    for kind in (signal.SIGTERM, signal.SIGKILL):
        saved = tmp_path / kind.name
        command = [sys.executable, "train.py", "-c", path, f"training.save_dir={saved}"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            while not list(saved.glob("*/*/checkpoint-epoch_*.params")):
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(kind)
        (folder,) = saved.glob("*/*")
        assert latest(folder).name != f"checkpoint-epoch_{EPOCHS}.params"
        _, meta = read(latest(folder))
        example, number, records, state = meta["data"]
        assert number == example // 300
        assert records < 300
        assert len(state) == 2  # file and offset
        resumed = train.fit(resume=folder)
        assert same_arrays(read(find(whole.folder))[0], read(find(resumed.folder))[0])
        lines = [(one / "metrics.jsonl").read_bytes() for one in (whole.folder, folder)]
        assert lines[0] == lines[1]


def test_a_run_on_a_stream_is_checked_evaluated_and_reported(
    stream_config, write_config, capsys, tmp_path
):
    stream_config["training"]["epochs"] = 2
    path = write_config(stream_config)
    assert train.main(["-c", path, "--check"]) == 0
    run = train.fit(path, training__steps_per_call=4)
    assert (run.folder / "report.html").exists()
    capsys.readouterr()
    assert evaluation.main(["-w", str(run.folder), "--latest", "--predictions"]) == 0
    assert f"accuracy @ {run.metrics['test_accuracy']}" in capsys.readouterr().out
    assert len((run.folder / "predictions.csv").read_text().splitlines()) == 1 + 40
    other = train.fit(path, training__steps_per_call=1, training__save_dir=str(tmp_path / "other"))
    assert same_arrays(read(find(run.folder))[0], read(find(other.folder))[0])


def test_a_damaged_test_file_stops_the_start(stream_config, write_config, tmp_path, capsys):
    path = tmp_path / "test-0.tar"
    path.write_bytes(path.read_bytes()[:20000])
    assert train.main(["-c", write_config(stream_config)]) == 1
    assert "test-0.tar: damaged" in capsys.readouterr().err
    assert not list((tmp_path / "whole").glob("*/*"))
