"""Two processes: the first says when minutes are over and whether a callback stops the run."""

import json

from benchmarks import scale
from tests.helpers.process_groups import outputs_of
from tests.helpers.project import same_arrays
from training.checkpoint.naming import latest, numbered
from training.checkpoint.reading import read, read_meta

FIRST, OTHERS = 21, 13  # steps from which on each process would stop


def trained(folder, *overrides):
    """The folder of a run of two processes, which a callback stops."""
    callback = {
        "name": "tests.helpers.hooks:stop_by_process", "every": "1 step",
        "args": {"first": FIRST, "others": OTHERS},
    }  # fmt: skip
    words = [f"training.callbacks={json.dumps([callback])}", "training.keep=99", *overrides]
    group = scale.Group(folder, 9, overrides=words)
    outputs_of(group, group.start_all(), [0, 0])
    assert f"Stopped by a callback at step {FIRST}: process first" in group.said(0)
    return group.run


def test_the_first_process_decides_and_minutes_change_no_bit(tmp_path):
    timed = trained(tmp_path / "minutes", "training.save_every=0.0001 minutes")
    plain = trained(tmp_path / "epochs", "training.save_every=100 epochs")
    assert len(numbered(plain)) == 1
    assert len(numbered(timed)) > 3
    assert read_meta(latest(timed))["steps"] == FIRST
    assert same_arrays(read(latest(timed))[0], read(latest(plain))[0])
    assert (timed / "metrics.jsonl").read_bytes() == (plain / "metrics.jsonl").read_bytes()
