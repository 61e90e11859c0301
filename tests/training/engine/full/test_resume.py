"""Resuming with more epochs, another rate, another seed: each change is said."""

import re

import numpy as np

from tests.helpers.project import TRAIN_EXAMPLES
from tests.helpers.tracking import json_lines
from training.checkpoint.naming import latest
from training.checkpoint.reading import read, read_meta
from training.checkpoint.single_file import write

COSINE = (
    'training.optimizer.args.learning_rate={"name": "warmup_cosine", "args": '
    '{"peak": 0.01, "total_steps": "total_steps"}}'
)


def last_epoch(folder):
    return json_lines(folder / "metrics.jsonl")[-1]


def test_more_epochs_restretch_a_schedule_with_a_word_and_smaller_batches_leave_no_epoch_at_0(
    run, capsys
):
    _, folder = run(COSINE, "training.epochs=2")
    capsys.readouterr()
    assert run("--resume", str(folder), "training.epochs=3", "data_loader.train.args.batch_size=256"
               ) == (0, folder)  # fmt: skip
    steps, total = 16, 16 + 4  # 8 batches of 128 in each epoch, then 4 of 256
    assert last_epoch(folder)["step"] == total
    assert last_epoch(folder)["epoch_train_learning_rate"] > 1e-4
    said = capsys.readouterr().out
    (word,) = [line for line in said.splitlines() if "Learning rate" in line]
    cosine = 0.005 * (1 + np.cos(np.pi * (steps - 2) / (total - 2)))  # a tenth of them rises
    assert f"-> {cosine:.3g} from the last update to the next (as planned before: 0)" in word
    assert word.endswith("; total_steps is 20 now")
    assert "Batches have 256 examples from here on, they had 128: an epoch has 4 updates" in said


def test_a_resumed_run_says_that_nothing_is_left_or_that_its_data_changed(run, config, capsys):
    _, folder = run("training.epochs=1")
    capsys.readouterr()
    assert run("--resume", str(folder)) == (0, folder)
    assert "1 of 1 epochs are done; training.epochs=2 adds one" in capsys.readouterr().out
    run("--resume", str(folder), "training.epochs=2", "training.optimizer.args.learning_rate=.5")
    assert re.search(r"Learning rate \S+ -> 0.5 from the last update", capsys.readouterr().out)


def test_a_rate_that_is_0_to_the_end_is_told(run, capsys):
    ends = COSINE.replace('"total_steps": "total_steps"', '"total_steps": 8')
    _, folder = run(ends, "training.epochs=1")
    run("--resume", str(folder), "training.epochs=2")
    assert "Learning rate 0 from here on: nothing more will be learned" in capsys.readouterr().out


def test_another_order_of_the_data_within_an_epoch_is_told(run, trusty, monkeypatch, capsys):
    monkeypatch.setenv("SIGNAL_AT", "SIGINT@12")
    _, folder = run()
    monkeypatch.delenv("SIGNAL_AT")
    run("--resume", str(folder), "seed=5")
    assert "The data or their order have changed within epoch 2" in capsys.readouterr().out


def test_a_checkpoint_without_the_number_of_updates_goes_on_counting(run):
    """As those of older versions are."""
    _, folder = run("training.epochs=1")
    path = latest(folder)
    arrays, meta = read(path)
    for name in ("steps", "batch_size", "batches_before", "examples_before", "rates"):
        del meta[name]
    write(path, arrays, meta)
    assert run("--resume", str(folder), "training.epochs=2") == (0, folder)
    assert last_epoch(folder)["step"] == 16


def test_a_checkpoint_to_begin_with_is_refused_where_a_run_goes_on(run, capsys):
    _, folder = run("training.epochs=1")
    assert run("--resume", str(folder), f"training.checkpoint={folder}")[0] == 1
    assert "this is for a new run" in capsys.readouterr().err


def seen(batch):
    return batch["inputs"][batch["weight"] > 0].tolist()


def test_an_epoch_goes_on_with_the_examples_it_has_not_seen_at_another_batch_size(
    run, trusty, monkeypatch, capsys
):
    monkeypatch.setenv("SIGNAL_AT", "SIGINT@14")  # in the second epoch
    code, folder = run("data_loader.train.args.batch_size=100")
    monkeypatch.delenv("SIGNAL_AT")
    done = read_meta(latest(folder))
    assert code == 130
    assert (done["epochs"], 0 < done["batch"] < 9, done["batch_size"]) == (1, True, 100)
    capsys.readouterr()
    assert run("--resume", str(folder), "data_loader.train.args.batch_size=64") == (0, folder)
    held_in = TRAIN_EXAMPLES * 9 // 10
    seen = 100 * done["batch"]
    assert f"Epoch 2 continues after {seen} of its {held_in} examples" in capsys.readouterr().out
    assert last_epoch(folder)["step"] == 9 + done["batch"] + -(-(held_in - seen) // 64)
    steps = [line["step"] for line in json_lines(folder / "metrics.jsonl") if "batch" in line]
    assert steps == sorted(set(steps))
