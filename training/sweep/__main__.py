"""Trains a config with every combination of some values, and shows which is best.

python -m training.sweep "training.optimizer.args.learning_rate=[0.01,0.02,0.03]" "seed=[0,1,2]"
python -m training.sweep "training.optimizer.args.weight_decay=0.001..1" --trials 20 --jobs 2

Brackets contain the values to try, each written as train.py reads it. A value that is a list has
its own brackets: "model.args.feat_dims=[[8,16,32],[16,32,64]]". LOW..HIGH is a range from which
--trials values are drawn; log(LOW,HIGH) and uniform(LOW,HIGH) say how. All other overrides apply to
every run. Runs that differ by their seed alone, or by the keys of --mean-over, are one line of the
table. With --sampler or --pruner, Optuna chooses the values: docs/sweeps.md.

Each run is a process of train.py, and a run folder in <save_dir>/<title>-sweep/<name>/. The same
command, run again, continues where it stopped; with more values it trains what is new.
"""

import argparse
import shlex
import signal
import sys

from training.sweep.execute import execute
from training.sweep.plan import Range, create_folders, parse_overrides, plan, short_names
from training.sweep.results import SEED, missing, table, write_csv, write_json, write_page
from training.sweep.schedulers import write_slurm, write_wandb
from utils import UserError, command, nearest


@command
def main(argv=None):
    """Runs the command line; returns the exit code."""
    options = parse_arguments(argv)
    try:
        searched = options.sampler or options.pruner
        fixed, choices = parse_overrides(options.overrides, options.trials, searched)
        over = _mean_over(options.mean_over, choices)
        if searched:
            return search(options, fixed, choices, over)
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
            show_results(folder, runs, over)
    except KeyboardInterrupt:  # before the first run; later, the running ones are saved first
        return 128 + signal.SIGINT
    return _exit_code(failed, stopped)


def search(options, fixed, choices, over):
    """Has Optuna choose the values of --trials settings; returns the exit code."""
    if not options.trials:
        raise UserError("--sampler and --pruner: say how many settings to try, like --trials 20")
    if options.task is not None or options.slurm or options.wandb:
        raise UserError("--sampler and --pruner: not with --task, --slurm or --wandb")
    listed = {key: one for key, one in choices.items() if key in over}
    searched = {key: one for key, one in choices.items() if key not in over}
    if not searched or any(isinstance(one, Range) for one in listed.values()):
        raise UserError("--sampler and --pruner: give a key to search, and lists to average over")

    def make_runs(values):
        values = {key: listed.get(key) or [values[key]] for key in choices}
        return plan(options.config, fixed, values, None, options.name)

    from training.sweep.search import Search

    sampler, pruner = options.sampler or "tpe", options.pruner or "none"
    found = Search(make_runs, searched, sampler, pruner, options.jobs)
    stopped = found.run(options.trials)
    if runs := found.runs():
        show_results(found.folder, runs, over)
    return _exit_code(found.failed, stopped)


def _exit_code(failed, stopped):
    if stopped:
        print("Stopped; continue with the same command", file=sys.stderr)
        return 128 + stopped
    return 1 if failed else 0


def show_results(folder, runs, over):
    """Prints the table, and writes sweep.csv, sweep.json and sweep.html."""
    print(f"\n{table(runs, over)}\n")
    for name, why in missing(runs).items():
        print(f"No result of {name}: {why}")
    path, page = write_csv(folder, runs), write_page(folder, runs, over)
    write_json(folder, runs, over)
    if page is None:
        print("sweep.html needs training/report, which is not part of this project")
    print(f"Look at {page or path}")


def _mean_over(names, choices):
    """Returns the keys over which the mean is taken: those named, maybe in short, and seed."""
    short = {name: key for key, name in short_names(list(choices)).items()}
    for name in names:
        if name not in short and name not in choices:
            known = nearest(name, short) or f"; there are {', '.join(short)}"
            raise UserError(f"--mean-over {name}: no such key has values to try{known}")
    keys = {short.get(name, name) for name in names}
    return tuple(key for key in choices if key in keys or key == "seed") or SEED


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
    parser.add_argument(
        "--mean-over", action="append", default=[], metavar="KEY",
        help="a key whose runs are one line of the table, beside seed",
    )  # fmt: skip
    parser.add_argument("--sampler", metavar="NAME", help="Optuna's: tpe, random, qmc, cmaes, gp")
    parser.add_argument("--pruner", metavar="NAME", help="Optuna's: median, halving, hyperband")
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
