"""Several devices and processes compared with one; benchmarks/scale.py has longer versions."""

import json
import re
import signal
import time

import pytest

from benchmarks import faults_common, scale
from tests.helpers.process_groups import outputs_of
from tests.helpers.project import ROOT, same_arrays
from tests.helpers.python_process import python
from training.checkpoint.naming import latest
from training.checkpoint.reading import read
from training.common.records import STD
from training.distributed import processes


def test_several_devices_and_processes_have_the_losses_of_one(tmp_path):
    scale.parity(tmp_path, 20, [(1, 8, 8), (2, 2, 4)], ["network"])


def test_two_optimizers_on_two_processes_have_the_losses_of_one(tmp_path):
    scale.parity(tmp_path, 20, [(2, 1, 1)], ["gan"])


def test_seeds_steps_per_call_cached_data_and_mixing_combine_with_several_devices(tmp_path):
    overrides = [
        "training.seeds=2",
        "training.steps_per_call=3",
        "data_loader.cache_on_device=true",
    ]
    overrides += ["data_loader.test.args.batch_size=50", "training.optimizer.args.eps=0.001"]
    overrides += ['data_loader.augment=["random_flip", "mixup", "cutmix"]']  # neighbours mix
    lines = []
    for devices in (1, 4):
        group = scale.Group(tmp_path / str(devices), 2, 32, overrides, 1, devices)
        group.finish()
        lines.append(group.lines())
    assert len(lines[0]) > 4
    for single, several in zip(*lines, strict=True):
        means = [name for name in single if not name.endswith(STD)]
        assert [single[name] for name in means] == pytest.approx(
            [several[name] for name in means], rel=1e-5
        )


def test_a_checkpoint_of_several_devices_resumes_on_any_number(tmp_path):
    group = scale.Group(tmp_path, 2, 32, ["devices.shards=2"], 2, 1)
    group.finish()
    saved, _ = read(latest(group.run))
    losses = []
    for devices in (1, 4):
        words = ["training.epochs=3", f"devices.shards={devices}"]
        other = scale.Group(tmp_path, 2, 32, processes=1, devices=devices)
        (process,) = other.start_all(own={0: words})
        assert process.wait(scale.PATIENCE) == 0, other.said(0)
        losses.append(other.lines()[-1]["test_loss"])
        latest(group.run).unlink()  # epoch 3's, so that the next one resumes from epoch 2's too
        assert same_arrays(read(latest(group.run))[0], saved)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_network_trained_on_several_devices_is_on_record_and_evaluated_on_one(tmp_path, script):
    group = scale.Group(tmp_path, 1, 32, ["devices.count=2", "devices.shards=2"], 1, 4)
    group.finish()
    written = json.loads((group.run / "config.json").read_text())
    assert written["devices"] == {"count": 2, "shards": 2, "orbax": False}
    done = script(ROOT / "test.py", "-w", group.run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    loss = float(re.search(r"loss @ (\S+)", done.stdout)[1])
    assert loss == pytest.approx(group.lines()[-1]["test_loss"], rel=1e-5)


def test_many_steps_on_many_devices_do_not_block_each_other(tmp_path):
    assert scale.steps(tmp_path, 300) == {"steps on 8 devices": 300}


def test_a_killed_process_is_noticed_at_once_and_the_run_resumes_without_it(tmp_path):
    counts = scale.kills(tmp_path, 1)
    assert counts["kills"] == counts["runs finished on one process"] == 1


def test_a_signal_to_one_process_stops_all_at_the_same_step(tmp_path):
    counts = scale.signals(tmp_path, 1)
    assert counts["signals, then weights and metrics.jsonl the same to the bit"] == 1


def test_a_frozen_process_is_noticed_after_a_few_heartbeats(tmp_path):
    group = scale.Group(tmp_path, 1000)
    started = group.start_all(heartbeat=3)
    try:
        assert group.wait_for(lambda: group.said(0).count("STARTING EPOCH") > 1, started[0])
        started[1].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert started[0].wait(scale.PATIENCE) == processes.LOST
        assert time.monotonic() - began < 30
        assert "another process was lost" in group.said(0).splitlines()[-1]
    finally:
        started[1].kill()
        started[1].wait()


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_reports_that_the_others_did_not_connect(tmp_path, index):
    group = scale.Group(tmp_path, 1)
    started = [None] * index + group.start_all(1, wait=2, own={0: ["--process-id", str(index)]})
    assert started[index].wait(scale.PATIENCE) == processes.LOST
    last = group.said(0).splitlines()[-1]
    assert last.startswith(
        f"error: process {index} of 2: the others did not connect within 2 seconds"
    )


def test_processes_with_different_data_report_it(tmp_path):
    group = scale.Group(tmp_path, 1)
    data = tmp_path / "elsewhere" / "data"
    data.parent.mkdir()
    faults_common.write_digits(data)
    pixels = bytearray((data / "train-images-idx3-ubyte").read_bytes())
    pixels[5000] ^= 1
    (data / "train-images-idx3-ubyte").write_bytes(pixels)
    root = f"data_loader.train.args.dataset.args.root={data}"
    for text in outputs_of(group, group.start_all(own={1: [root]}), [1, 1]):
        assert "data.train: process 0 has" in text


def test_processes_with_different_counts_report_it(tmp_path):
    group = scale.Group(tmp_path, 1)
    for text in outputs_of(group, group.start_all(own={1: ["--processes", "3"]}), [1, 1]):
        assert "processes: process 0 has 2, it has 3" in text


def test_an_error_in_one_process_ends_the_others_too(tmp_path):
    group = scale.Group(tmp_path, 1)
    own = {1: ["data_loader.train.args.dataset.args.root=nowhere"]}
    texts = outputs_of(group, group.start_all(own=own), [processes.LOST, 1])
    assert "another process was lost; see its output" in texts[0]
    assert "nowhere: no such folder" in texts[1]


REFUSED = {
    "data_loader.train.args.batch_size=33": "a batch of 33 cannot be split among 4 devices",
    "devices.count=5": "devices.count: expected at most 4, got 5",
    "devices.shards=3": "devices.shards: 3 do not divide 4 devices",
    "training.accumulate=32": "4 devices x 32 pieces (training.accumulate)",
}
TRY_EACH = """
import os, sys, train
os.chdir(sys.argv[1])
sys.stderr = sys.stdout
for override in sys.argv[2:]:
    print("exit code", train.main(["-c", "config.json", override]))
"""


def test_devices_that_cannot_train_a_config_are_refused(tmp_path):
    scale.Group(tmp_path, 1)
    printed = python(TRY_EACH, tmp_path, *REFUSED, devices=4)
    *said, rest = printed.split("exit code 1\n")
    assert rest == ""
    for message, text in zip(REFUSED.values(), said, strict=True):
        assert message in text
    assert not list(tmp_path.glob("saved/*/*"))


def test_a_step_that_is_not_finite_is_explained_on_several_devices(tmp_path):
    overrides = ["model.name=tests.helpers.networks:logarithm", "model.args={}", "devices.shards=2"]
    group = scale.Group(tmp_path, 1, 32, overrides, 2, 1)
    for text in outputs_of(group, group.start_all(), [1, 1]):
        assert "the first output that is not finite is that of layer logarithm" in text
    assert list(group.run.glob("not-finite-step_*.params"))


def test_processes_with_different_configs_report_what_differs(tmp_path):
    group = scale.Group(tmp_path, 1)
    texts = outputs_of(group, group.start_all(own={1: ["seed=3"]}), [1, 1])
    for text in texts:
        assert "process 1 would train something else than process 0" in text
        assert "config.seed: process 0 has 0, it has 3" in text
    assert not list(tmp_path.glob("saved/*/*"))
