"""Sweeps as processes: runs that fail, are killed or stopped, or are tasks of an array."""

import csv
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.project import ROOT, same_arrays
from training.checkpoint.naming import file_name, latest
from training.checkpoint.reading import read
from training.common.records import read_lines
from utils import optional_module

RATE = "training.optimizer.args.learning_rate"
TIMEOUT = 120  # seconds
HAS_REPORT = optional_module("training.report.render") is not None


@pytest.fixture
def sweeper(config, write_config):
    """Starts `python -m training.sweep` on the small config, as its own process."""

    def start(*arguments):
        command = [sys.executable, "-m", "training.sweep", "-c", write_config(config), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)

    return start


def finish(process):
    """Returns the exit code and what was printed."""
    output, errors = process.communicate(timeout=2 * TIMEOUT)
    return process.returncode, output + errors


def wait_for(path, process):
    deadline = time.monotonic() + TIMEOUT
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.01)


def children(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_sweep_trains_sorts_and_continues_when_a_run_fails(sweeper, script, run, config):
    config["training"]["monitor"] = "max test_accuracy"
    words = (f"{RATE}=[0.0001,0.01,fast]", "seed=[0,1]", "training.epochs=1")
    code, output = finish(sweeper(*words, "--jobs", "2"))
    assert code == 1
    assert output.count("FAILED, exit code 1") == 2
    # When each of the two fails, and at the end, where the runs without a result are named.
    assert output.count("learning_rate: expected a number, or a schedule") == 4
    assert "Traceback" not in output

    folder = Path(re.search(r"Look at (.+)/sweep\.(html|csv)", output)[1])
    assert (folder / "sweep.html").exists() == HAS_REPORT
    runs = {path.parent.name: path.parent for path in folder.glob("*/config.json")}
    assert len(runs) == 6
    failing = [name for name in runs if "fast" in name]
    found = {}
    for name, path in sorted(runs.items()):
        if name not in failing:
            last = read_lines(path / "metrics.jsonl")[-1]
            found.setdefault(name.partition(",")[0], []).append(last["test_accuracy"])
    lines = output.partition("\n\n")[2].splitlines()[:4]
    assert lines[0].split() == ["learning_rate", "seeds", "test_accuracy", "±", "last", "epoch"]
    better, worse = found["learning_rate=0.01"], found["learning_rate=0.0001"]
    assert statistics.fmean(better) > statistics.fmean(worse)
    for line, rate, values in zip(lines[1:], ("0.01", "0.0001"), (better, worse), strict=False):
        mean, std = f"{statistics.fmean(values):.4f}", statistics.stdev(values)
        assert line.split()[:3] == [rate, "2", mean]
        assert float(line.split()[3]) == pytest.approx(std, rel=0.06)
    assert lines[3].split() == ["fast", "0", "of", "2", "-", "-"]

    rows = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert {row["run"] for row in rows if row["finished"] == "False"} == set(failing)
    assert [float(row["test_accuracy"]) for row in rows if row[RATE] == "0.01"] == better

    # Its runs are like any other: the same bits as train.py alone, usable by all commands.
    _, alone = run(f"{RATE}=0.01", "seed=1", "training.epochs=1")
    one = runs["learning_rate=0.01,seed=1"]
    assert same_arrays(read(latest(one))[0], read(latest(alone))[0])
    assert read_lines(one / "metrics.jsonl") == read_lines(alone / "metrics.jsonl")
    if compare := optional_module("training.report.compare"):
        assert "the same to the bit" in compare.compare([one, alone])
    done = script("test.py", "-w", one)
    assert done.returncode == 0, done.stderr

    before = latest(one).stat().st_mtime_ns
    code, output = finish(sweeper("seed=[1,0]", f"{RATE}=[0.01,0.0001]", "training.epochs=1"))
    assert code == 0
    assert "4 runs, 0 of them to train" in output
    assert latest(one).stat().st_mtime_ns == before


def test_a_killed_sweep_continues_and_ends_with_the_same_bits(sweeper, config, run):
    words = ("seed=[0,1]", "training.epochs=60", "training.keep=100")
    folder = Path(config["training"]["save_dir"], "MNIST_Sample-sweep", "seed")

    process = sweeper(*words)
    wait_for(folder / "seed=0" / "checkpoint-epoch_2.params", process)
    process.kill()  # the run outlives it
    process.communicate()

    process = sweeper(*words)
    wait_for(folder / "seed=1" / "checkpoint-epoch_2.params", process)
    (child,) = children(process.pid)
    process.kill()
    os.kill(child, signal.SIGKILL)
    process.communicate()
    assert latest(folder / "seed=1").name != file_name(60)

    code, output = finish(sweeper(*words))
    assert code == 0, output
    first, second = ((folder / f"seed={seed}" / "train.log").read_text() for seed in (0, 1))
    assert first.count("Start Training!") == 1
    assert second.count("Start Training!") == 2
    assert re.search(r"Resuming from .*checkpoint-epoch_\d+", second)
    _, alone = run("seed=1", *words[1:])
    assert same_arrays(read(latest(folder / "seed=1"))[0], read(latest(alone))[0])
    metrics = [(one / "metrics.jsonl").read_bytes() for one in (folder / "seed=1", alone)]
    assert metrics[0] == metrics[1]


def test_ctrl_c_saves_the_running_run_and_starts_no_other(sweeper, config):
    words = ("seed=[0,1]", "training.epochs=1000")
    folder = Path(config["training"]["save_dir"], "MNIST_Sample-sweep", "seed")
    process = sweeper(*words)
    wait_for(folder / "seed=0" / "checkpoint-epoch_1.params", process)
    process.send_signal(signal.SIGINT)
    code, output = finish(process)
    assert code == 128 + signal.SIGINT
    assert "seed=0: stopped" in output
    assert "Stopped; continue with the same command" in output
    assert "Stopped; continue with" in (folder / "seed=0" / "train.log").read_text()
    assert not (folder / "seed=1" / "train.log").exists()


def test_a_run_stopped_midway_and_evaluated_is_not_finished(sweeper, script, config):
    words = ("seed=[0]", "training.epochs=40", "training.keep=100")
    folder = Path(config["training"]["save_dir"], "MNIST_Sample-sweep", "seed")
    process = sweeper(*words)
    wait_for(folder / "seed=0" / "checkpoint-epoch_2.params", process)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 128 + signal.SIGTERM, output
    assert "No result of seed=0: not finished" in output
    done = script("test.py", "-w", folder / "seed=0")
    assert done.returncode == 0, done.stderr
    code, output = finish(sweeper(*words))
    assert code == 0
    assert "1 runs, 1 of them to train" in output
    assert latest(folder / "seed=0").name == file_name(40)


def test_the_same_sweep_twice_at_once_trains_each_run_once(sweeper, config):
    words = ("seed=[0,1]", "training.epochs=5")
    folder = Path(config["training"]["save_dir"], "MNIST_Sample-sweep", "seed")
    for code, output in map(finish, [sweeper(*words), sweeper(*words)]):
        assert code == 0, output
        # The other trains a run, or trained it while this one was busy with its own.
        assert re.search("another process train(s|ed) it", output) or "[2/2]" in output, output
        assert "FAILED" not in output
    for seed in (0, 1):
        assert (folder / f"seed={seed}" / "train.log").read_text().count("Start Training!") == 1


def test_tasks_of_an_array_train_one_run_each(sweeper, config):
    words = ("seed=[0,1]", "training.epochs=1", "--name", "my array")
    code, output = finish(sweeper(*words, "--slurm"))
    assert code == 0, output
    path = Path(re.search(r"sbatch '(.+)'", output)[1])
    text = path.read_text()
    assert "#SBATCH --array=0-1\n" in text
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "1"}
    done = subprocess.run(["bash", path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    checkpoint = path.parent / "seed=1" / file_name(1)
    before = checkpoint.stat().st_mtime_ns
    assert not (path.parent / "seed=0" / "train.log").exists()
    done = subprocess.run(["bash", path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "STARTING EPOCH" not in done.stdout  # it is finished
    assert checkpoint.stat().st_mtime_ns == before

    assert finish(sweeper(*words, "--task", "2"))[1] == "error: --task 2: expected 0 to 1\n"
    assert finish(sweeper(*words, "--task", "0"))[0] == 0
    code, output = finish(sweeper(*words))
    assert code == 0
    assert "2 runs, 0 of them to train" in output
