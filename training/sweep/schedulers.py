"""Writes the files that let SLURM or Weights & Biases run a sweep."""

import os
import shlex
import sys

from training.common.files import atomic_write_text, disk_errors
from training.sweep.plan import Range, value_text
from training.sweep.results import monitored

SBATCH = """#!/bin/bash
#SBATCH --job-name={title}
#SBATCH --array=0-{last}
#SBATCH --output={log}
#SBATCH --signal=B:TERM@60
# Add what your cluster asks for: --partition, --time, --cpus-per-task, --gres=gpu:1, ...
# A minute before its time limit a run saves and ends. Submitted again, the array continues; a run
# that is finished ends at once.
runs=(
{names}
)
cd {here} || exit
exec {python} train.py --resume {folder}/"${{runs[SLURM_ARRAY_TASK_ID]}}"
"""


def write_slurm(folder, runs):
    """Writes sweep.sbatch, an array job with a task for each run; returns its path."""
    text = SBATCH.format(
        title=shlex.quote(folder.parent.name),
        last=len(runs) - 1,
        log=shlex.quote(str(folder / "slurm-%a.log")),
        names="\n".join(f"    {shlex.quote(run.folder.name)}" for run in runs),
        here=shlex.quote(os.getcwd()),
        python=shlex.quote(sys.executable),
        folder=shlex.quote(str(folder)),
    )
    atomic_write_text(folder / "sweep.sbatch", text)
    return folder / "sweep.sbatch"


def write_wandb(folder, runs, path, fixed, choices):
    """Writes sweep.yaml, by docs.wandb.ai/models/sweeps/sweep-config-keys; returns its path."""
    import yaml  # a dependency of wandb

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
        kind = "log_uniform_values" if one.log else "uniform"
        return {"distribution": "q_" * one.integer + kind, "min": one.low, "max": one.high}
    return {"values": [v if type(v) in (int, float) else value_text(v) for v in one]}
