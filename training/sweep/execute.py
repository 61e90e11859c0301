"""Trains the runs of a sweep, several at a time, each in its own process of train.py."""

import contextlib
import os
import subprocess
import sys
import time
from typing import Any, NamedTuple

import utils
from data_loader.locked_files import open_locked
from training.common.files import disk_errors
from training.distributed.preemption import StopSignal
from training.sweep.plan import ERRORS, Run
from training.sweep.results import describe, finished

POLL_INTERVAL = 0.1  # seconds
ERROR_LINES = 4  # shown of a failed run's message
GPU_SHARE = 0.9  # of a GPU's memory, for all runs that train at the same time


class Job(NamedTuple):
    """A run that is training: its process, the file of its errors, and its start time."""

    run: Run
    process: subprocess.Popen
    errors: Any
    began: float  # seconds, by time.monotonic


def execute(runs, jobs):
    """Trains the runs that are not finished, `jobs` at a time, and prints how each of them ended.

    A signal is passed on: the runs that are training save and end, and no other starts. A run that
    another process trains, such as one that outlived a killed sweep, is waited for.

    Returns:
        The number of runs that failed, and the signal's number or None.
    """
    waiting, running, failed = [run for run in runs if not finished(run)], [], 0
    print(f"{runs[0].folder.parent}: {len(runs)} runs, {len(waiting)} of them to train", flush=True)
    elsewhere, passed_on = set(), False
    with StopSignal() as stop:
        while running or (waiting and not stop.signal):
            for run in waiting[:]:
                if stop.signal or len(running) == jobs:
                    break
                if errors := claim(run):
                    waiting.remove(run)
                    if finished(run):  # in the meantime, by another process
                        release(run, errors)
                        print(f"{run.folder.name}: another process trained it", flush=True)
                        continue
                    running.append(start(run, errors, jobs))
                elif run.folder not in elsewhere:
                    elsewhere.add(run.folder)
                    print(f"{run.folder.name}: another process trains it", flush=True)
            time.sleep(POLL_INTERVAL)
            if stop.signal and not passed_on:
                passed_on = True
                for job in running:
                    job.process.terminate()
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                count = f"[{len(runs) - len(waiting) - len(running)}/{len(runs)}]"
                failed += report_end(job, count, stop.signal)
    return failed, stop.signal


def claim(run):
    """Opens the file of a run's errors, locked until its process ends; None if another has it."""
    with disk_errors(run.folder):
        errors = open_locked(run.folder / ERRORS)
        if errors:
            errors.truncate(0)
    return errors


def release(run, errors):
    """Removes and closes the file of a claim on a run that has no errors."""
    with errors, contextlib.suppress(OSError):
        (run.folder / ERRORS).unlink()  # while nobody else has its lock


def start(run, errors, jobs):
    """Starts or resumes a run, which is the same command of train.py; returns the Job."""
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{GPU_SHARE / jobs:.3f}")
    process = subprocess.Popen(
        [sys.executable, utils.ROOT / "train.py", "--resume", run.folder],
        env=environment,
        stdout=subprocess.DEVNULL,  # train.log has it
        stderr=errors,
        start_new_session=True,  # Ctrl-C reaches the sweep alone, which passes it on once
    )
    return Job(run, process, errors, time.monotonic())


def report_end(job, count, stopped, word="stopped"):
    """Prints how a run ended, `word` if it was `stopped`; returns whether it failed."""
    name, code = job.run.folder.name, job.process.returncode
    with job.errors as errors:
        errors.seek(0)
        message = errors.read().decode(errors="replace").strip().splitlines()[-ERROR_LINES:]
        if code == 0:
            release(job.run, errors)
    if code == 0:
        seconds = time.monotonic() - job.began
        print(f"{count} {name}: {describe(job.run)} ({seconds:.0f} s)", flush=True)
    elif stopped:
        print(f"{count} {name}: {word}", flush=True)
    else:
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        print("\n    ".join([f"{count} {name}: FAILED, {reason}", *message]), flush=True)
    return code != 0 and not stopped
