"""Trains a config with every combination of some values, and shows which is best.

python -m training.sweep "training.optimizer.args.learning_rate=[0.01,0.02,0.03]" "seed=[0,1,2]"
python -m training.sweep "training.optimizer.args.weight_decay=0.001..1" --trials 20 --jobs 2

Brackets contain the values to try, each written as train.py reads it. A value that is a list has
its own brackets: "model.args.feat_dims=[[8,16,32],[16,32,64]]". LOW..HIGH is a range from which
--trials values are drawn. All other overrides apply to every run. Runs that differ by their seed
alone are one line of the table.

Each run is a process of train.py, and a run folder in <save_dir>/<title>-sweep/<name>/. The same
command, run again, continues where it stopped; with more values it trains what is new.
"""

import argparse
import shlex
import signal
import sys

from training.sweep.execute import execute
from training.sweep.plan import create_folders, parse_overrides, plan
from training.sweep.results import table, write_csv, write_page
from training.sweep.schedulers import write_slurm, write_wandb
from utils import UserError, command


@command
def main(argv=None):
    """Runs the command line; returns the exit code."""
    options = parse_arguments(argv)
    try:
        fixed, choices = parse_overrides(options.overrides, options.trials)
        runs = plan(options.config, fixed, choices, options.trials, options.name)
        folder = runs[0].folder.parent
        if options.wandb:
            path = write_wandb(folder, runs, options.config, fixed, choices)
            print(f"Written; continue with: wandb sweep {shlex.quote(str(path))}")
            return 0
        if options.task is not None and options.task not in range(len(runs)):
            raise UserError(f"--task {options.task}: expected 0 to {len(runs) - 1}")
        chosen = runs if options.task is None else [runs[options.task]]
        create_folders(chosen)
        if options.slurm:
            path = write_slurm(folder, runs)
            print(f"Written; continue with: sbatch {shlex.quote(str(path))}")
            return 0
        failed, stopped = execute(chosen, options.jobs)
        if options.task is None:
            show_results(folder, runs)
    except KeyboardInterrupt:  # before the first run; later, the running ones are saved first
        return 128 + signal.SIGINT
    if stopped:
        print("Stopped; continue with the same command", file=sys.stderr)
        return 128 + stopped
    return 1 if failed else 0


def show_results(folder, runs):
    """Prints the table, and writes sweep.csv and sweep.html."""
    print(f"\n{table(runs)}\n")
    path, page = write_csv(folder, runs), write_page(folder, runs)
    if page is None:
        print("sweep.html needs training/report, which is not part of this project")
    print(f"Look at {page or path}")


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
    parser.add_argument("--name", help="of the sweep's folder; by default the names of the keys")
    parser.add_argument("--task", type=int, metavar="I", help="train one run only, from 0")
    parser.add_argument("--slurm", action="store_true", help="write an array job, train nothing")
    parser.add_argument("--wandb", action="store_true", help="write a W&B sweep, train nothing")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    return parser.parse_intermixed_args(argv)


def _count(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
