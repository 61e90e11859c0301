"""Trains a config with every combination of some values, and tells which did best.

python -m training.sweep "training.optimizer.args.learning_rate=[0.01,0.02,0.03]" "seed=[0,1,2]"
python -m training.sweep "training.optimizer.args.weight_decay=0.001..1" --trials 20 --jobs 2

Brackets hold the values to try, each as train.py takes it; one that is a list has brackets of its
own: "model.args.feat_dims=[[8,16,32],[16,32,64]]". LOW..HIGH is a range, to draw --trials values
from. Anything else holds for all runs. Runs that differ by their seed alone are one line of the
table.

Each run is a process of train.py, and a run folder in <save_dir>/<title>-sweep/<name>/. The same
command, given again, goes on where it stopped; with more values it trains what is new.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import utils
from training.common.files import atomic_write_text, disk_errors
from training.distributed.preemption import StopSignal
from training.sweep.plan import Range, Run, plan, prepare, sort_out, value_text
from training.sweep.results import figures, finished, monitored, table, write_results

try:
    import fcntl
except ImportError:  # on Windows nothing keeps two processes from training one run
    fcntl = None

TICK = 0.1  # seconds between two looks at the runs
LINES = 4  # of a failed run's message
ERRORS = "errors.log"  # in a run's folder, while it is under way or if it failed
GPU_SHARE = 0.9  # of a GPU's memory that the runs under way may take together


class Job(NamedTuple):
    """A run under way: its process, the file its errors go to, and when it began."""

    run: Run
    process: subprocess.Popen
    errors: Any
    began: float


def main(argv=None):
    """Runs the command line; returns the exit code."""
    options = parse_arguments(argv)
    try:
        fixed, choices = sort_out(options.overrides, options.trials)
        runs = plan(options.config, fixed, choices, options.trials, options.name)
        folder = runs[0].folder.parent
        if options.wandb:
            path = write_wandb(folder, runs, options.config, fixed, choices)
            print(f"Written, go on with: wandb sweep {shlex.quote(str(path))}")
            return 0
        if options.task is not None and options.task not in range(len(runs)):
            raise utils.UserError(f"--task {options.task}: expected 0 to {len(runs) - 1}")
        chosen = runs if options.task is None else [runs[options.task]]
        prepare(chosen)
        if options.slurm:
            path = write_slurm(folder, runs)
            print(f"Written, go on with: sbatch {shlex.quote(str(path))}")
            return 0
        failed, stopped = execute(chosen, options.jobs)
        if options.task is None:
            print(f"\n{table(runs)}\n\nLook at {write_results(folder, runs)}")
    except utils.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the first run; from then on what is under way is saved
        return 128 + signal.SIGINT
    if stopped:
        print("Stopped; the same command goes on", file=sys.stderr)
        return 128 + stopped
    return 1 if failed else 0


def parse_arguments(argv):
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-c", "--config", default="config.json", metavar="FILE")
    parser.add_argument("--jobs", type=_count, default=1, metavar="N", help="runs at a time")
    parser.add_argument("--trials", type=_count, metavar="N", help="how often to draw from ranges")
    parser.add_argument("--name", help="of the sweep's folder; by itself that of the keys")
    parser.add_argument("--task", type=int, metavar="I", help="train one of the runs, from 0 on")
    parser.add_argument("--slurm", action="store_true", help="write an array job, train nothing")
    parser.add_argument("--wandb", action="store_true", help="write a W&B sweep, train nothing")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    return parser.parse_intermixed_args(argv)


def _count(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


# Running it ------------------------------------------------------------------------------------


def execute(runs, jobs):
    """Trains what is not finished, `jobs` runs at a time, and tells how each ended.

    A signal is passed on: the runs under way save and end, and no other begins. A run that another
    process trains, such as one that outlived a sweep that was killed, is waited for.

    Returns:
        how many failed, and the signal's number or None.
    """
    waiting, running, failed = [run for run in runs if not finished(run)], [], 0
    print(f"{runs[0].folder.parent}: {len(runs)} runs, {len(waiting)} of them to train", flush=True)
    elsewhere, passed_on = set(), False
    with StopSignal() as stop:
        while running or (waiting and not stop.signal):
            for run in waiting[:]:
                if stop.signal or len(running) == jobs:
                    break
                if errors := _claim(run):
                    waiting.remove(run)
                    if finished(run):  # by now, by another process
                        errors.close()
                        continue
                    running.append(_start(run, errors, jobs))
                elif run.folder not in elsewhere:
                    elsewhere.add(run.folder)
                    print(f"{run.folder.name}: another process trains it", flush=True)
            time.sleep(TICK)
            if stop.signal and not passed_on:
                passed_on = True
                for job in running:
                    job.process.terminate()
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                place = f"[{len(runs) - len(waiting) - len(running)}/{len(runs)}]"
                failed += _tell(job, place, stop.signal)
    return failed, stop.signal


def _claim(run):
    """Opens the file of a run's errors, locked until its process ends; None if another has it."""
    with disk_errors(run.folder):
        errors = open(run.folder / ERRORS, "a+b")  # noqa: SIM115
    if fcntl:
        try:
            fcntl.flock(errors, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            errors.close()
            return None
    errors.truncate(0)
    return errors


def _start(run, errors, jobs):
    """Begins a run or goes on with it, which is the same to train.py; returns the Job."""
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


def _tell(job, place, stopped):
    """Prints how a run ended; returns whether it failed."""
    name, code = job.run.folder.name, job.process.returncode
    with job.errors as errors:
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()[-LINES:]
    if code == 0:
        (job.run.folder / ERRORS).unlink(missing_ok=True)
        seconds = time.monotonic() - job.began
        print(f"{place} {name}: {figures(job.run)} ({seconds:.0f} s)", flush=True)
    elif stopped:
        print(f"{place} {name}: stopped", flush=True)
    else:
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        print("\n    ".join([f"{place} {name}: FAILED, {reason}", *said]), flush=True)
    return code != 0 and not stopped


# Having it run elsewhere -----------------------------------------------------------------------

SBATCH = """#!/bin/bash
#SBATCH --job-name={title}
#SBATCH --array=0-{last}
#SBATCH --output={log}
#SBATCH --signal=B:TERM@60
# Add what your cluster asks for: --partition, --time, --cpus-per-task, --gres=gpu:1, ...
# A minute before its time is over a run saves and ends; submitted again, the array goes on.
runs=(
{names}
)
cd {here} || exit
run={folder}/${{runs[SLURM_ARRAY_TASK_ID]}}
[ -e "$run/report.html" ] || exec {python} train.py --resume "$run"
"""


def write_slurm(folder, runs):
    """Writes sweep.sbatch, an array job with a task for each run; returns its path."""
    quoted = {
        "title": folder.parent.name,
        "log": str(folder / "slurm-%a.log"),
        "here": os.getcwd(),
        "folder": str(folder),
        "python": sys.executable,
    }
    quoted = {name: shlex.quote(text) for name, text in quoted.items()}
    names = "\n".join(f"    {shlex.quote(run.folder.name)}" for run in runs)
    text = SBATCH.format(last=len(runs) - 1, names=names, **quoted)
    atomic_write_text(folder / "sweep.sbatch", text)
    return folder / "sweep.sbatch"


def write_wandb(folder, runs, path, fixed, choices):
    """Writes sweep.yaml, by docs.wandb.ai/models/sweeps/sweep-config-keys; returns its path."""
    import yaml  # comes with wandb

    sense, name = monitored(runs)
    settings = runs[0].config.wandb
    command = ["${env}", "${interpreter}", "${program}", "-c", path, *fixed]
    ranges = any(isinstance(one, Range) for one in choices.values())
    sweep = {
        "name": folder.name,
        **{key: getattr(settings, key) for key in ("project", "entity") if getattr(settings, key)},
        "program": "train.py",
        "command": [*command, "wandb.enabled=true", "${args_no_hyphens}"],  # these: key=value
        "method": "random" if ranges else "grid",
        "metric": {"name": name, "goal": f"{sense}imize"},
        "run_cap": len(runs),
        "parameters": {key: _wandb_parameter(one) for key, one in choices.items()},
    }
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(folder / "sweep.yaml", yaml.safe_dump(sweep, sort_keys=False))
    return folder / "sweep.yaml"


def _wandb_parameter(one):
    """The values; all but numbers as text, since W&B would write them as Python does: `True`."""
    if isinstance(one, Range):
        kind = "log_uniform_values" if one.low > 0 else "uniform"
        return {"distribution": "q_" * one.whole + kind, "min": one.low, "max": one.high}
    return {"values": [v if type(v) in (int, float) else value_text(v) for v in one]}


if __name__ == "__main__":
    sys.exit(main())
