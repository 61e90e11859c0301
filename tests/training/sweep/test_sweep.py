"""Sweeps: the planned runs, training them through failures and kills, and the results."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.helpers.project import ROOT
from training.checkpoint.naming import file_name
from training.checkpoint.single_file import write
from training.common.records import STD, read_lines
from training.config import read_config
from training.engine.progress import Progress
from training.sweep import __main__ as sweep
from training.sweep.plan import (
    Range,
    create_folders,
    parse_overrides,
    plan,
    short_names,
    value_text,
)
from training.sweep.results import (
    finished,
    missing,
    settings,
    table,
    write_csv,
    write_json,
    write_page,
)
from utils import UserError, optional_module

SAMPLE = str(ROOT / "config.json")
RATE = "training.optimizer.args.learning_rate"
HAS_REPORT = optional_module("training.report.render") is not None


def runs_of(*overrides, trials=None, path=SAMPLE):
    return plan(path, *parse_overrides(overrides, trials), trials)


# Planning --------------------------------------------------------------------------------


def test_every_combination_is_a_run_with_its_own_config_and_folder():
    runs = runs_of(f"{RATE}=[0.01,0.02,0.03]", "seed=[0,1,2]", "training.epochs=3")
    assert [run.folder.name for run in runs[:4]] == [
        "learning_rate=0.01,seed=0", "learning_rate=0.01,seed=1", "learning_rate=0.01,seed=2",
        "learning_rate=0.02,seed=0",
    ]  # fmt: skip
    assert {str(run.folder.parent) for run in runs} == {
        "saved/MNIST_Sample-sweep/learning_rate-seed"
    }
    found = [(run.config.training.optimizer.args["learning_rate"], run.config.seed) for run in runs]
    assert found == [(rate, seed) for rate in (0.01, 0.02, 0.03) for seed in (0, 1, 2)]
    assert all(run.config.training.epochs == 3 for run in runs)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[1,2.5,1e-3]", [1, 2.5, 0.001]),
        ("[adamw,lion]", ["adamw", "lion"]),
        ("[ adamw , 3, true ]", ["adamw", 3, True]),
        ('["adamw","3"]', ["adamw", "3"]),
        ("[[8,16,32],[16,32]]", [[8, 16, 32], [16, 32]]),
        ("[[8,16,32]]", [[8, 16, 32]]),
        ('[null,{"name":"f"}]', [None, {"name": "f"}]),
        ("0.001..0.1", Range(0.001, 0.1)),
        ("-2..3", Range(-2, 3)),
    ],
)
def test_brackets_are_values_and_two_dots_a_range(text, values):
    trials = 2 if isinstance(values, Range) else None
    assert parse_overrides([f"model.args.a={text}", "title=[x"], trials) == (
        ["title=[x"], {"model.args.a": values},
    )  # fmt: skip


@pytest.mark.parametrize("text", ["3", "adamw", '{"a":[1,2]}', "../data", "1..x", "a[1]", ""])
def test_anything_else_applies_to_all_runs(text):
    fixed = f"model.args.a={text}"
    assert parse_overrides([fixed, "seed=[0,1]"], None) == ([fixed], {"seed": [0, 1]})


@pytest.mark.parametrize(
    ("overrides", "trials", "message"),
    [
        (["seed=3"], None, "nothing to try: give a key several values, like"),
        (["seed=[]"], None, "seed=[]: expected one value or more, each of them once"),
        (["seed=[0,1,0]"], None, "expected one value or more, each of them once"),
        (["seed=[0]", "seed=[1]"], None, "seed: its values to try are given twice"),
        (["model.args.a=[[1,2]"], None, "model.args.a=[[1,2]: not valid JSON"),
        (["model.args.a=0.1..0.2"], None, "model.args.a: a range; say how many values to draw"),
        (["model.args.a=3..1"], 2, "model.args.a=3..1: expected LOW..HIGH, the lower end first"),
        (["model.args.a=0..Infinity"], 2, "Infinity is no number to train with"),
        (["seed=[0,1]"], 5, "--trials: no key has a range to draw from"),
        (["seeed=[0,1]"], None, "seeed: unknown key; did you mean 'seed'?"),
        (["seed=[0,-1]"], None, "seed: expected greater than or equal to 0, got -1"),
        (["training.loss=[cross_entropy,cross_entropi]"], None, "did you mean 'cross_entropy'?"),
        (["title=[a,b]"], None, "title, training.save_dir and training.monitor: expected the same"),
        (["seed=[0]", "training.monitor=x"], None, "training.monitor: expected 'min NAME' or"),
        (["model.args.a=[[1,2],1_2,]"], None, "not valid JSON"),
        (['model.args.a=[[1,2],"1_2"]'], None, "two runs would both be called a=1_2"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_and_nothing_is_created(
    overrides, trials, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        runs_of(*overrides, trials=trials)
    assert list(tmp_path.iterdir()) == []


def test_a_list_that_may_be_meant_as_the_value_is_refused():
    message = "model.args.feat_dims=[[8,16,32]] for this one, =[[8,16,32],[...]] for several"
    with pytest.raises(UserError, match=re.escape(message)):
        runs_of("model.args.feat_dims=[8,16,32]", "seed=[0,1]")
    runs = runs_of("model.args.feat_dims=[[8,16,32],[4]]")
    assert [run.config.model.args["feat_dims"] for run in runs] == [[8, 16, 32], [4]]
    assert [run.folder.name for run in runs] == ["feat_dims=8_16_32", "feat_dims=4"]


def test_draws_are_repeatable_and_log_uniform():
    override = "training.optimizer.args.weight_decay=0.001..1"
    runs = runs_of(override, "seed=[0,1]", trials=3)
    more = runs_of(override, "seed=[0,1]", trials=5)
    assert [run.folder for run in runs] == [run.folder for run in more[:6]]
    values = [run.config.training.optimizer.args["weight_decay"] for run in more]
    assert values[::2] == values[1::2]
    assert len(set(values)) == 5
    values = [Range(0.001, 1).draw(str(seed)) for seed in range(300)]
    for low, high in ((0.001, 0.01), (0.01, 0.1), (0.1, 1)):
        assert (
            70 < sum(low <= value < high for value in values) < 130
        )  # 100, standard deviation 8.2


def test_short_names_are_unique():
    keys = ["model.name", "training.loss.name", "data_loader.train.args.batch_size", "seed",
            "data_loader.test.args.batch_size", "training.metrics.0"]  # fmt: skip
    assert list(short_names(keys).values()) == [
        "model.name", "loss.name", "train.args.batch_size", "seed", "test.args.batch_size",
        "metrics.0",
    ]  # fmt: skip


def test_a_folder_of_another_config_is_refused_and_not_changed(config, write_config):
    path = write_config(config)
    create_folders(runs_of("seed=[0,1]", path=path))
    create_folders(runs_of("seed=[0,1,2]", path=path))  # more of the same
    with pytest.raises(UserError, match=r"seed=0: was created with training.epochs=2, now it is 5"):
        create_folders(runs_of("seed=[0,1]", "training.epochs=5", path=path))
    written = Path(config["training"]["save_dir"]).glob("*/seed/*/config.json")
    assert {read_config(one).training.epochs for one in written} == {2}


# Training and results ----------------------------------------------------------------------------


def test_a_sweep_trains_and_the_same_command_trains_nothing_again(
    config, write_config, capsys, monkeypatch
):
    config["training"]["monitor"] = "max test_accuracy"
    words = ["-c", write_config(config), f"{RATE}=[0.01]", "training.epochs=1"]
    assert sweep.main(words) == 0
    output = capsys.readouterr().out
    folder = Path(config["training"]["save_dir"], "MNIST_Sample-sweep", "learning_rate")
    best = read_lines(folder / "learning_rate=0.01" / "metrics.jsonl")[-1]["test_accuracy"]
    assert "1 runs, 1 of them to train" in output
    assert f"[1/1] learning_rate=0.01: test_accuracy {best:.4f} in its best epoch" in output
    assert output.splitlines()[-3].split() == ["0.01", "1", f"{best:.4f}", f"{best:.4f}"]
    assert sorted(file.name for file in folder.glob("sweep.*")) == [
        "sweep.csv", *["sweep.html"] * HAS_REPORT, "sweep.json"
    ]  # fmt: skip

    # The results do not need training/report, and a finished run is not recognized by its report.
    monkeypatch.setattr("training.sweep.results.optional_module", lambda name: None)
    for file in folder.glob("**/*.html"):
        file.unlink()
    assert sweep.main(words) == 0
    output = capsys.readouterr().out
    assert "1 runs, 0 of them to train" in output
    assert output.endswith(
        "\n\nsweep.html needs training/report, which is not part of this project\n"
        f"Look at {folder}/sweep.csv\n"
    )
    assert not list(folder.glob("**/*.html"))


@pytest.fixture
def measured(config, write_config):
    """Makes the run folders of a sweep as training leaves them, with the metrics of each epoch."""

    def make(overrides, metrics, monitor="max test_accuracy"):
        config["training"] |= {"monitor": monitor, "early_stop": 1}
        runs = runs_of(*overrides, path=write_config(config))
        create_folders(runs)
        for run, epochs in zip(runs, metrics, strict=True):
            finish_by_hand(run, epochs)
        return runs

    return make


def finish_by_hand(run, epochs):
    """Makes what training leaves in a run folder, of the metrics of each epoch."""
    lines = [{"step": 8, "epoch": 1, "batch": 7, "train_loss": 1.0}]
    lines += [{"step": 8 * i, "epoch": i, **one} for i, one in enumerate(epochs, 1)]
    (run.folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    if epochs:
        progress = Progress(epochs=len(epochs), since_best=1)
        write(run.folder / file_name(len(epochs)), {}, progress.meta())


def test_the_best_epoch_is_chosen_by_the_sense_of_the_monitor(measured):
    words = ["model.args.feat_dims=[[4],[8],[16]]", "seed=[0,1]"]
    losses = [[3.0, 1.0, 2.0], [5.0], [0.5, float("nan")], [0.75], [], []]
    runs = measured(words, [[{"test_loss": x} for x in one] for one in losses], "min test_loss")
    best, second, none = settings(runs)
    assert (best.values, best.mean, best.seeds) == ({"model.args.feat_dims": [8]}, 0.625, "2")
    assert best.std == pytest.approx(0.25 / 2**0.5)
    assert (second.mean, second.last) == (3.0, 3.5)
    assert (none.seeds, none.std) == ("0 of 2", None)
    assert [line.split()[0] for line in table(runs).splitlines()[1:]] == ["[8]", "[4]", "[16]"]


def test_a_run_with_damaged_metrics_has_an_empty_cell(measured):
    metrics = [[0.5], [0.75, 0.625]]
    metrics = [[{"test_accuracy": x} for x in one] for one in metrics]
    runs = measured([f"{RATE}=[1,2]"], metrics)
    path = runs[1].folder / "metrics.jsonl"
    path.write_text(path.read_text()[:-5])  # the last line is cut short
    best, damaged = settings(runs)
    assert (best.mean, damaged.seeds) == (0.5, "1")
    assert table(runs).splitlines()[2].split() == ["2", "1", "-", "-"]
    write_csv(runs[0].folder.parent, runs)


@pytest.mark.parametrize("value", [float("nan"), None])
def test_metrics_that_are_never_finite_are_an_empty_cell(measured, value):
    epoch = {"test_accuracy": value}
    runs = measured(["training.clip_norm=[1]", "seed=[0,1]"], [[epoch], [epoch]])
    assert table(runs).splitlines()[1].split() == ["1", "2", "-", "-"]
    write_csv(runs[0].folder.parent, runs)


def test_seeds_trained_at_once_have_their_own_standard_deviation(measured):
    epoch = {"test_accuracy": 0.5, f"test_accuracy{STD}": 0.125}
    runs = measured([f"{RATE}=[1,2]", "training.seeds=5"], [[epoch], [epoch]])
    assert [(one.seeds, one.std) for one in settings(runs)] == [("5", 0.125), ("5", 0.125)]


@pytest.mark.skipif(not HAS_REPORT, reason="without training/report")
def test_the_page_has_the_table_and_every_run_without_script_or_network(measured):
    values = [[0.9], [0.92], [0.95], [0.97], [0.5], []]
    metrics = [[{"test_accuracy": x} for x in one] for one in values]
    runs = measured(["model.args.rule=[a,b&b,<script>]", "seed=[0,1]"], metrics)
    page = write_page(runs[0].folder.parent, runs).read_text()
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in body.split("</tr>")[:3]]
    assert [row[:3] for row in cells] == [
        ["b&amp;b", "2", "0.9600"], ["a", "2", "0.9100"], ["&lt;script&gt;", "1 of 2", "0.5000"],
    ]  # fmt: skip
    assert body.count("/report.html") == 5
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert "http" not in page.replace('http-equiv="Content', "")


def test_ranges_become_distributions_for_wandb(config, write_config, capsys):
    words = ["training.optimizer.args.b2=0..1", "training.clip_norm=0.1..10", "seed=[0,1]"]
    words += ["data_loader.train.args.batch_size=16..256", "--trials", "4", "--wandb"]
    assert sweep.main(["-c", write_config(config), *words]) == 0
    path = Path(capsys.readouterr().out.rpartition(" ")[2].strip())
    written = yaml.safe_load(path.read_text())
    assert (written["method"], written["run_cap"]) == ("random", 8)
    assert written["parameters"] == {
        "training.optimizer.args.b2": {"distribution": "q_uniform", "min": 0, "max": 1},
        "training.clip_norm": {"distribution": "log_uniform_values", "min": 0.1, "max": 10},
        "seed": {"values": [0, 1]},
        "data_loader.train.args.batch_size": {
            "distribution": "q_log_uniform_values", "min": 16, "max": 256,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "progress", "expected"),
    [
        (file_name(4), Progress(epochs=4), True),
        (file_name(3), Progress(epochs=3, since_best=1), False),
        (file_name(3), Progress(epochs=3, since_best=2), True),  # stopped early
        (file_name(4, 5), Progress(epochs=3, batch=5), False),
        (None, None, False),
    ],
)
def test_a_run_is_finished_by_its_last_checkpoint_alone(
    config, write_config, name, progress, expected
):
    config["training"] |= {"epochs": 4, "early_stop": 2}
    (run,) = runs_of("seed=[0]", path=write_config(config))
    create_folders([run])
    if name:
        write(run.folder / name, {"weights": np.arange(1000.0)}, progress.meta())
    assert finished(run) is expected
    assert not any(file.name == "report.html" for file in run.folder.iterdir())
    for path in run.folder.glob("*.params"):  # without its header, nothing is known
        path.write_bytes(path.read_bytes()[9:])
        assert finished(run) is False


@pytest.mark.parametrize("value", [3, 0.1, "3", "a b", "true", True, None, [1, "a"], {"k": 1}])
def test_a_value_written_for_train_py_is_read_back_unchanged(value):
    config = read_config(SAMPLE, [f"model.args.a={value_text(value)}"])
    assert config.model.args["a"] == value
    assert type(config.model.args["a"]) is type(value)


# Folds and variables ---------------------------------------------------------------------


def folded(config, write_config):
    config["data_loader"]["train"]["args"] |= {"fold": "$fold", "folds": 3}
    return write_config(config)


def test_a_variable_of_the_config_is_swept_by_its_name(config, write_config):
    path = folded(config, write_config)
    runs = runs_of("fold=[0,1,2]", "seed=[0,1]", path=path)
    found = [(run.config.data_loader.train.args["fold"], run.config.seed) for run in runs]
    assert found == [(fold, seed) for fold in (0, 1, 2) for seed in (0, 1)]
    assert runs[1].folder.name == "fold=0,seed=1"
    with pytest.raises(UserError, match='"\\$fold" is not given'):
        runs_of("seed=[0,1]", path=path)


def test_the_mean_over_folds_and_seeds_is_numpys_and_names_what_is_missing(config, write_config):
    words = ["fold=[0,1,2]", "training.clip_norm=[1,2]", "seed=[0,1]"]
    monitor = "training.monitor=min validation_loss"
    runs = runs_of(*words, monitor, path=folded(config, write_config))
    create_folders(runs)
    done = [run for run in runs if (run.values["training.clip_norm"], run.values["fold"]) != (1, 2)]
    losses = {}
    for index, run in enumerate(done):
        losses[run.folder.name] = 1 + index / 10
        finish_by_hand(run, [{"validation_loss": x} for x in (9, losses[run.folder.name])])
    failed = next(run for run in runs if run not in done)
    (failed.folder / "errors.log").write_text("Traceback\nValueError: too few\n")
    over = ("fold", "seed")
    complete, partial = settings(runs, over)  # the lower mean comes second: it lacks runs
    values = [losses[run.folder.name] for run in done if run.values["training.clip_norm"] == 2]
    assert complete.values == {"training.clip_norm": 2}
    assert complete.seeds == "6"
    assert complete.mean == pytest.approx(np.mean(values))
    assert complete.std == pytest.approx(np.std(values, ddof=1))
    assert partial.seeds == "4 of 6"
    assert list(partial.missing.values()) == ["failed: ValueError: too few", "not finished"]
    assert missing(runs)[failed.folder.name] == "failed: ValueError: too few"
    assert table(runs, over).split()[:2] == ["clip_norm", "runs"]
    written = json.loads(write_json(runs[0].folder.parent, runs, over).read_text())
    assert written["settings"][0]["mean"] == complete.mean
    assert written["settings"][1]["missing"] == partial.missing
    assert written["over"] == ["fold", "seed"]
    page = write_page(runs[0].folder.parent, runs, over)
    if HAS_REPORT:
        assert f"{failed.folder.name}: failed: ValueError: too few" in page.read_text()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("log(0.001,0.1)", Range(0.001, 0.1, "log")),
        ("uniform(1, 4)", Range(1, 4, "uniform")),
        ("uniform(-1e-3,.5)", Range(-0.001, 0.5, "uniform")),
    ],
)
def test_a_range_may_say_how_it_is_drawn(text, found):
    assert parse_overrides([f"model.args.a={text}"], 2)[1] == {"model.args.a": found}


def test_a_logarithm_of_a_range_down_to_0_is_refused():
    with pytest.raises(UserError, match=r"a logarithm needs ends above 0; write uniform\(LOW"):
        parse_overrides(["model.args.a=log(0,1)"], 2)


def test_uniform_draws_are_uniform_and_stay_within_the_range():
    values = [Range(0.001, 1, "uniform").draw(str(seed)) for seed in range(300)]
    assert 120 < sum(value < 0.5 for value in values) < 180
    assert all(0.00123456 <= Range(0.00123456, 1).draw(str(seed)) <= 1 for seed in range(50))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=[0,1]", "--mean-over", "sed"], "--mean-over sed: no such key has values to try; "
         "did you mean 'seed'?"),
        ([f"{RATE}=[1,2]", "--sampler", "tpe"], "say how many settings to try, like --trials 20"),
        ([f"{RATE}=[1,2]", "--sampler", "tp", "--trials", "2"], "--sampler: no 'tp'; did you mean"),
        ([f"{RATE}=[1,2]", "--pruner", "x", "--trials", "2"], "--pruner: no 'x'; there are none, "),
        (["seed=[1,2]", "--sampler", "tpe", "--trials", "2"], "give a key to search"),
        ([f"{RATE}=[1,2]", "--pruner", "median", "--trials", "2", "--slurm"], "not with --task"),
    ],
)  # fmt: skip
def test_mistakes_in_options_are_refused(words, message, config, write_config):
    with pytest.raises(UserError, match=re.escape(message)):
        sweep.main.__wrapped__(["-c", write_config(config), *words])


def test_without_optuna_a_search_says_what_to_install(config, write_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    words = ["-c", write_config(config), f"{RATE}=1..2", "--trials", "2", "--pruner", "median"]
    with pytest.raises(UserError, match=r"needs optuna.*pip install optuna==5"):
        sweep.main.__wrapped__(words)
