"""Several processes, started as examples/cluster and docs/many_devices.md say."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from benchmarks import scale
from tests.helpers.process_groups import CLUSTER, block, slurm
from tests.helpers.project import ROOT
from training.checkpoint.naming import latest
from training.distributed import processes

PAGE = ROOT / "docs" / "many_devices.md"
PORTS = range(61440, 65536)  # that JAX derives from the number of a job


class Project:
    """A folder in which `python train.py` trains a small network on few digits."""

    def __init__(self, folder, epochs=2):
        self.folder = scale.Group(folder, epochs).folder
        (folder / "train.py").symlink_to(ROOT / "train.py")

    def start(self, words, environment=None):
        """Starts a command, and returns the process."""
        program = sys.executable if words[0] == "python" else words[0]
        return subprocess.Popen(
            [program, *words[1:]],
            cwd=self.folder, env=os.environ | (environment or {}), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, commands):
        """Runs (words, variables) at the same time, to exit code 0; returns what they print."""
        started = [self.start(*command) for command in commands]
        printed = [process.communicate(timeout=scale.PATIENCE)[0] for process in started]
        assert [process.returncode for process in started] == [0] * len(started), printed
        return printed

    def runs(self):
        """The run folders."""
        return [config.parent for config in self.folder.glob("saved/*/*/config.json")]


def lines(run):
    """The metrics of a run, line by line."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_training(project, expected):
    """Compares the only run of a project with the metrics of one on a single device."""
    (run,) = project.runs()
    for line, other in zip(lines(run), expected, strict=True):
        assert line == pytest.approx(other, rel=1e-5)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The metrics of one process on one device."""
    project = Project(tmp_path_factory.mktemp("single"))
    project.run([(["python", "train.py"], None)])
    return lines(project.runs()[0])


def test_the_commands_of_the_page_train_as_one_device_does(tmp_path, single):
    (emulated,), terminals = block(PAGE, "### Emulated devices"), block(PAGE, "wo terminals")
    assert emulated[1] == {"JAX_NUM_CPU_DEVICES": "8"}
    assert [words[-1] for words, _ in terminals] == ["0", "1"]
    for name, commands in (("emulated", [emulated]), ("terminals", terminals)):
        project = Project(tmp_path / name)
        printed = project.run(commands)
        assert ["Finished!" in text for text in printed] == [True, False][: len(commands)]
        assert_same_training(project, single)


def free_job():
    """Returns the number of a job whose port is free."""
    for port in random.sample(PORTS, 20):  # other tests may look for one too
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) != 0:
                return port - PORTS.start
    raise AssertionError("no port is free")


def open_mpi(job, index, count=2):
    """The variables that mpirun of Open MPI 4 sets in a process on this machine."""
    return {
        "OMPI_MCA_orte_hnp_uri": f"{job * 2**12}.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": str(count), "OMPI_COMM_WORLD_RANK": str(index),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(index),
    }  # fmt: skip


@pytest.mark.parametrize("scheduler", [slurm, open_mpi])
def test_processes_of_a_scheduler_find_each_other(tmp_path, single, scheduler):
    project, job = Project(tmp_path), free_job()
    command = ["python", "train.py"]
    printed = project.run([(command, scheduler(job, index)) for index in range(2)])
    assert ["Finished!" in text for text in printed] == [True, False]
    assert_same_training(project, single)


def test_a_batch_script_without_srun_trains_in_one_process(tmp_path):
    project = Project(tmp_path, 1)
    variables = slurm(1, 0, 8)
    del variables["SLURM_STEP_NODELIST"]
    (printed,) = project.run([(["python", "train.py"], variables)])
    assert "Finished!" in printed


def test_a_new_process_and_a_resuming_one_report_that_they_differ(tmp_path):
    group = scale.Group(tmp_path, 1)
    started = group.start_all(own={1: ["--resume", "latest"]})
    assert [process.wait(scale.PATIENCE) for process in started] == [1, 1]
    for index in range(2):
        assert "resume: process 0 has null, it has latest" in group.said(index)


# Replaces SLURM on one machine: starts the requested number of processes, forwards signals to each,
# and returns the largest exit code.
SRUN = """
    #!{python}
    import os, signal, subprocess, sys
    words = [word for word in sys.argv[1:] if not word.startswith("--wait=")]
    def variables(index):
        own = {{"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)}}
        return os.environ | own | {{"SLURM_STEP_NODELIST": "localhost"}}
    tasks = range(int(os.environ["SLURM_NTASKS"]))
    started = [subprocess.Popen(words, env=variables(index)) for index in tasks]
    def forward(number, _):
        for process in started:
            process.send_signal(number)
    signal.signal(signal.SIGTERM, forward)
    codes = [process.wait() for process in started]
    sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""


PYTHON = """
    #!/bin/sh
    exec {python} "$@"
"""


SCONTROL = """
    #!/bin/sh
    echo "$@" >> scontrol.log
"""


@pytest.fixture
def batch(tmp_path):
    """Returns a function that starts train.slurm in a Project, like a job of two processes."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("python", PYTHON), ("srun", SRUN), ("scontrol", SCONTROL)):
        text = textwrap.dedent(text).lstrip().format(python=sys.executable)
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    job = free_job()

    def start(project, *words):
        variables = {
            "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": str(job), "SLURM_NTASKS": "2",
            "SLURM_SUBMIT_DIR": str(project.folder),
        }  # fmt: skip
        return project.start(["bash", str(CLUSTER / "train.slurm"), *words], variables)

    start.job = job
    return start


def children(pid):
    """Returns the ids of the processes that a process has started."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(one) for one in listed.split()]


def test_the_slurm_script_saves_before_its_time_is_up_and_resumes_when_requeued(tmp_path, batch):
    project = Project(tmp_path / "project")
    process = batch(project, "training.epochs=3000", "training.save_every=3000")
    saved = project.folder / "saved" / f"job-{batch.job}"
    while not (metrics := list(saved.glob("*/*/metrics.jsonl"))) or lines_of(metrics[0]) < 9:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    (srun,) = children(process.pid)
    os.kill(srun, signal.SIGTERM)
    printed, _ = process.communicate(timeout=scale.PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM, printed
    assert printed.count("Stopped; continue with") == 1
    log = project.folder / "scontrol.log"
    assert log.read_text() == f"requeue {batch.job}\n"
    run = metrics[0].parent
    config = json.loads((run / "config.json").read_text())
    config["training"]["epochs"] = int(re.search(r"epoch_(\d+)", latest(run).name)[1])
    (run / "config.json").write_text(json.dumps(config))

    process = batch(project, "training.epochs=3000", "training.save_every=3000")
    printed, _ = process.communicate(timeout=scale.PATIENCE)
    assert process.returncode == 0, printed
    assert "Resuming from" in printed
    assert "Finished!" in printed
    assert [one.parent.parent.parent for one in saved.glob("*/*/config.json")] == [saved]
    assert log.read_text().count("requeue") == 1


def lines_of(path):
    """Returns the number of lines of a file."""
    return path.read_bytes().count(b"\n")


def test_the_slurm_script_does_not_requeue_a_wrong_config(tmp_path, batch):
    project = Project(tmp_path / "project")
    process = batch(project, "model.name=mlpp")
    printed, _ = process.communicate(timeout=scale.PATIENCE)
    assert process.returncode in (1, processes.LOST)  # the first to leave is missed by the other
    assert "did you mean 'mlp'?" in printed
    assert not (project.folder / "scontrol.log").exists()


# Prints the bytes that an update of a config exchanges, and the number of weights.
EXCHANGED = """
import re, jax
from training.engine.build import build
from training.config import read_config
from training.distributed.sharding import put_batch
from training.engine.initialize import first_batch

experiment = build(read_config("config.json"))
batch = put_batch(first_batch(experiment), experiment.mesh)
state = experiment.init(batch)
compiled = experiment.update.lower(state, batch).compile().as_text()
summed = re.findall(r"= (.*?) all-reduce(?:-start)?\\(", compiled)
shapes = re.findall(r"f32\\[([0-9,]*)\\]", " ".join(summed))
numbers = [eval(shape.replace(",", "*") or "1") for shape in shapes]
print(4 * sum(numbers), sum(leaf.size for leaf in jax.tree.leaves(state.params)))
"""


def test_an_update_exchanges_four_bytes_for_each_weight(tmp_path, script):
    project = Project(tmp_path)
    variables = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "PYTHONPATH": str(ROOT)}
    done = script("-c", EXCHANGED, cwd=project.folder, env=variables)
    assert done.returncode == 0, done.stderr
    exchanged, weights = map(int, done.stdout.split())
    measured = 4 * 10  # the loss and the accuracy, with their weights, and some margin
    assert 4 * weights <= exchanged <= 4 * weights + measured
