"""Sweeps: the files for wandb, and ranges between integers."""

import json
import re
import statistics
from pathlib import Path

import yaml

from tests.helpers.project import ROOT
from training.config import read_config
from training.sweep import __main__ as sweep
from training.sweep.plan import (
    Range,
    parse_overrides,
    plan,
)

SAMPLE = str(ROOT / "config.json")


RATE = "training.optimizer.args.learning_rate"


def runs_of(*overrides, trials=None, path=SAMPLE):
    return plan(path, *parse_overrides(overrides, trials), trials)


def test_a_range_between_integers_draws_integers_each_once():
    runs = runs_of("model.args.width=1..4", "model.name=mlp", trials=30)
    assert sorted(run.values["model.args.width"] for run in runs) == [1, 2, 3, 4]
    zero = [Range(0, 0.5).draw(str(seed)) for seed in range(300)]
    assert all(0 <= value <= 0.5 for value in zero)
    assert 0.22 < statistics.fmean(zero) < 0.28


def test_wandb_makes_commands_of_train_py_from_the_file(config, write_config, capsys):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    tried = {
        "training.tensorboard": [True, False],
        "model.args.feat_dims": [[8, 16], [4]],
        RATE: [0.00001, 0.01],
        "training.clip_norm": [None, 1.0],
        "title": ["3"],
    }
    config["training"]["monitor"] = "max test_accuracy"
    words = [f"{key}={json.dumps(values)}" for key, values in tried.items()]
    words += ["training.epochs=1", "--wandb", "--name", "x"]
    assert sweep.main(["-c", write_config(config), *words]) == 0
    path = Path(re.search(r"wandb sweep (.+)", capsys.readouterr().out)[1])
    assert [one.name for one in path.parent.iterdir()] == ["sweep.yaml"]
    written = yaml.safe_load(path.read_text())
    assert (written["program"], written["method"]) == ("train.py", "grid")
    assert written["metric"] == {"name": "test_accuracy", "goal": "maximize"}
    assert written["run_cap"] == 16

    for index in (0, -1):
        chosen = {
            key: {"value": one["values"][index]} for key, one in written["parameters"].items()
        }
        arguments = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
        command = create_sweep_command(list(written["command"]))
        assert command[:3] == ["${env}", "${interpreter}", "${program}"]
        assert command[-1] == "${args_no_hyphens}"
        flag, file, *fixed = command[3:-1]
        assert flag == "-c"
        read = read_config(file, fixed + arguments)
        assert read.wandb.enabled
        assert read.training.epochs == 1
        assert read.title == "3"
        assert read.training.tensorboard is tried["training.tensorboard"][index]
        assert read.model.args["feat_dims"] == tried["model.args.feat_dims"][index]
        assert read.training.optimizer.args["learning_rate"] == tried[RATE][index]
        assert read.training.clip_norm == tried["training.clip_norm"][index]


def test_without_a_monitor_wandb_is_told_what_the_table_is_sorted_by(config, write_config, capsys):
    config["training"]["monitor"] = None
    words = ["-c", write_config(config), "seed=[0,1]", "training.epochs=1"]
    assert sweep.main([*words, "--wandb"]) == 0
    path = Path(re.search(r"wandb sweep (.+)", capsys.readouterr().out)[1])
    written = yaml.safe_load(path.read_text())
    assert written["metric"] == {"name": "test_loss", "goal": "minimize"}
    assert sweep.main(words) == 0
    assert "test_loss" in capsys.readouterr().out.partition("\n\n")[2].split()
