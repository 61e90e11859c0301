"""Runs on bad disks: full, read-only, forbidden, removed, slow."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time

from benchmarks.faults_common import COMMAND, Trial, expect
from training.checkpoint.naming import numbered
from training.checkpoint.reading import read

EPOCHS = 40
# Makes file permissions apply to root, too.
BOUND = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
SLOW = """
import os, runpy, sys, time
sys.path.insert(0, os.path.dirname(sys.argv[1]))
fsync, calls = os.fsync, []
def slow(descriptor):
    calls.append(descriptor)
    time.sleep(6 if len(calls) == 20 else 0.05)
    fsync(descriptor)
os.fsync = slow
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def disks(folder, seed=0):
    """Trains real runs on bad disks.

    Returns:
        {disk: outcome of the run}

    Raises:
        AssertionError: a run lost a checkpoint, had an unexpected exit code, or has other bits than
            one on a good disk.
    """
    whole = Trial(folder / "whole", EPOCHS, width=100)
    whole.finish()
    expected, outcomes = whole.result(), {}
    for disk in (full, full_to_the_end, read_only, forbidden, moved_away, removed, slow):
        trial = Trial(folder / disk.__name__, EPOCHS, width=100)
        outcomes[disk.__name__.replace("_", " ")] = disk(trial, expected)
    return outcomes


def full(trial, expected):
    """Full for a while."""
    with _disk(trial, "size=12m"):
        process = trial.start()
        with _trouble(trial, process):
            filler = _fill(trial)
        with _stopped(process):
            filler.unlink()
        trial.expect_end(process)
        trial.expect_result(expected)
    return "reported, saved again once there was space, the same bits"


def full_to_the_end(trial, expected):
    """Full until the run is over."""
    with _disk(trial, "size=12m"):
        process = trial.start()
        with _trouble(trial, process):
            filler = _fill(trial)
        trial.expect_end(process, code=1)
        expect("error: " in trial.console.read_text().splitlines()[-1], "no error at the end")
        filler.unlink()
        trial.finish()
        trial.expect_result(expected)
    return "reported, exit code 1; with space, --resume latest: the same bits"


def read_only(trial, expected):
    """Read-only before the run, and between two starts of one."""
    with _disk(trial, "size=12m,ro"):
        trial.expect_end(trial.start(), code=1)
        expect("cannot write a run there: Read-only" in trial.console.read_text(), "not reported")
        _mount("-o", "remount,rw", trial.folder / "saved")
        process = trial.start()
        _after_two_saves(trial, process)
        process.send_signal(signal.SIGTERM)
        trial.expect_end(process, code=128 + signal.SIGTERM)
        saved = _contents(trial)
        _mount("-o", "remount,ro", trial.folder / "saved")
        trial.expect_end(trial.start(), code=1)
        expect(_contents(trial) == saved, "the checkpoints have changed")
        _mount("-o", "remount,rw", trial.folder / "saved")
        trial.finish()
        trial.expect_result(expected)
    return "reported at the start, exit code 1; once writable: the same bits"


def forbidden(trial, expected):
    """The folder loses its permissions for a while."""
    process = trial.start([*(BOUND if os.geteuid() == 0 else []), *COMMAND])
    with _trouble(trial, process):
        trial.run.chmod(0o555)
    with _stopped(process):
        trial.run.chmod(0o755)
    trial.expect_end(process)
    trial.expect_result(expected)
    return "reported, saved again once permitted, the same bits"


def moved_away(trial, expected):
    """The folder is elsewhere for a while."""
    process, away = trial.start(), trial.folder / "away"
    with _trouble(trial, process, folder=away):
        run = trial.run.rename(away)
    with _stopped(process):
        run.rename(trial.run)
    trial.expect_end(process)
    trial.expect_result(expected)
    return "reported, saved again once it was back, the same bits"


def removed(trial, expected):
    """The folder is removed for good."""
    process = trial.start()
    with _trouble(trial, process, folder=None):
        shutil.rmtree(trial.run)
    trial.expect_end(process, code=1)
    expect(
        "No such file or directory" in trial.console.read_text().splitlines()[-1], "not reported"
    )
    return "reported, trained to the end, exit code 1"


def slow(trial, expected):
    """Every file takes 50 ms longer, one of them 6 s."""
    python, script = COMMAND
    process = trial.start([python, "-c", SLOW, script])
    trial.expect_end(process)
    expect("is slow" in trial.console.read_text(), "a wait of six seconds was not reported")
    trial.expect_result(expected)
    return "reported where training waits, the same bits"


def limited(trial, expected):
    """Full for a while, by a limit on the size of files: works where mounting is not allowed."""
    process = trial.start()
    with _trouble(trial, process):
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, hard))
    with _stopped(process):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    trial.expect_end(process)
    trial.expect_result(expected)
    return "reported, saved again once there was space, the same bits"


@contextlib.contextmanager
def _trouble(trial, process, folder="the run"):
    """Stops the process within the context; afterwards a save must fail, and old ones be readable.

    Args:
        trial: the Trial.
        process: its process.
        folder: where its checkpoints are afterwards; None: nowhere.
    """
    _after_two_saves(trial, process)
    with _stopped(process):
        before = _contents(trial)
        yield
    failed = trial.wait_for(lambda: "NOT SAVED" in trial.console.read_text(), process)
    expect(failed, f"no save failed: {trial.console.read_text()[-2000:]}")
    if folder is not None:
        after = _contents(trial, None if folder == "the run" else folder)
        kept = {name for name in before if after.get(name) == before[name]}
        expect(len(kept) >= min(2, len(before)), f"{set(before) - kept} have changed")


def _after_two_saves(trial, process):
    found = trial.wait_for(lambda: trial.run and len(numbered(trial.run)) >= 2, process)
    expect(found, f"no two checkpoints: {trial.console.read_text()[-2000:]}")


@contextlib.contextmanager
def _stopped(process):
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.05)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def _contents(trial, folder=None):
    """Returns {name: bytes} of the run's checkpoints, which must all be readable."""
    paths = numbered(folder or trial.run)
    for path in paths:
        read(path)
    return {path.name: path.read_bytes() for path in paths}


def _fill(trial):
    """Fills the disk with a file, and returns its path."""
    filler = trial.folder / "saved" / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


@contextlib.contextmanager
def _disk(trial, options):
    """Mounts a small file system for the run folder; needs root."""
    saved = trial.folder / "saved"
    saved.mkdir()
    _mount("-t", "tmpfs", "-o", options, "tmpfs", saved)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", saved], check=True)


def _mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)
