"""Sweeps: what is to run, that it runs and goes on whatever befalls it, and what is told of it."""

import csv
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.helpers.project import ROOT, same_arrays
from training.checkpoint.naming import latest
from training.checkpoint.reading import read
from training.config import read_config
from training.report.compare import compare
from training.sweep import __main__ as sweep
from training.sweep.plan import Range, plan, prepare, short_names, sort_out, value_text
from training.sweep.results import settings, table, write_results
from utils import UserError

SAMPLE = str(ROOT / "config.json")
RATE = "training.optimizer.args.learning_rate"
PATIENCE = 120  # seconds


@pytest.fixture
def sweeper(config, write_config):
    """Starts `python -m training.sweep` on the small config, as its own process."""

    def start(*arguments):
        command = [sys.executable, "-m", "training.sweep", "-c", write_config(config), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)

    return start


def finish(process):
    """Returns the exit code and what was said."""
    output, errors = process.communicate(timeout=2 * PATIENCE)
    return process.returncode, output + errors


def wait_for(path, process):
    until = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, f"{path} does not come"
        time.sleep(0.01)


def children(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs_of(*overrides, trials=None, path=SAMPLE):
    return plan(path, *sort_out(overrides, trials), trials)


# What is to run --------------------------------------------------------------------------------


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
def test_brackets_hold_values_and_two_points_make_a_range(text, values):
    trials = 2 if isinstance(values, Range) else None
    assert sort_out([f"model.args.a={text}", "title=[x"], trials) == (
        ["title=[x"], {"model.args.a": values},
    )  # fmt: skip


@pytest.mark.parametrize("text", ["3", "adamw", '{"a":[1,2]}', "../data", "1..x", "a[1]", ""])
def test_anything_else_holds_for_all_runs(text):
    fixed = f"model.args.a={text}"
    assert sort_out([fixed, "seed=[0,1]"], None) == ([fixed], {"seed": [0, 1]})


@pytest.mark.parametrize(
    ("overrides", "trials", "message"),
    [
        (["seed=3"], None, "nothing to try: give a key several values, like"),
        (["seed=[]"], None, "seed=[]: expected one value or more, and none of them twice"),
        (["seed=[0,1,0]"], None, "expected one value or more, and none of them twice"),
        (["seed=[0]", "seed=[1]"], None, "seed: the values to try are there twice"),
        (["model.args.a=[[1,2]"], None, "model.args.a=[[1,2]: not a list of values"),
        (["model.args.a=0.1..0.2"], None, "model.args.a: a range; say how many values to draw"),
        (["model.args.a=3..1"], 2, "model.args.a=3..1: expected LOW..HIGH, the lower end first"),
        (["model.args.a=0..Infinity"], 2, "expected LOW..HIGH"),
        (["seed=[0,1]"], 5, "--trials: no key has a range to draw from"),
        (["seeed=[0,1]"], None, "seeed: unknown key; did you mean 'seed'?"),
        (["seed=[0,-1]"], None, "seed: expected greater than or equal to 0, got -1"),
        (["training.loss=[cross_entropy,cross_entropi]"], None, "did you mean 'cross_entropy'?"),
        (["title=[a,b]"], None, "title, training.save_dir and training.monitor: one for all"),
        (["seed=[0]", "training.monitor=x"], None, "training.monitor: expected 'min NAME' or"),
        (["model.args.a=[[1,2],1_2]"], None, "not a list of values"),
        (['model.args.a=[[1,2],"1_2"]'], None, "two runs would both be called a=1_2"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_and_nothing_is_made(
    overrides, trials, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        runs_of(*overrides, trials=trials)
    assert list(tmp_path.iterdir()) == []


def test_a_list_that_may_be_meant_as_the_value_is_not_guessed_at():
    message = "model.args.feat_dims=[[8,16,32]] for this one, =[[8,16,32],[...]] for several"
    with pytest.raises(UserError, match=re.escape(message)):
        runs_of("model.args.feat_dims=[8,16,32]", "seed=[0,1]")
    runs = runs_of("model.args.feat_dims=[[8,16,32],[4]]")
    assert [run.config.model.args["feat_dims"] for run in runs] == [[8, 16, 32], [4]]
    assert [run.folder.name for run in runs] == ["feat_dims=8_16_32", "feat_dims=4"]


def test_draws_are_the_same_every_time_and_even_in_the_logarithm():
    override = "training.optimizer.args.weight_decay=0.001..1"
    runs = runs_of(override, "seed=[0,1]", trials=3)
    more = runs_of(override, "seed=[0,1]", trials=5)
    assert [run.folder for run in runs] == [run.folder for run in more[:6]]
    values = [run.config.training.optimizer.args["weight_decay"] for run in more]
    assert values[::2] == values[1::2]
    assert len(set(values)) == 5
    values = [Range(0.001, 1).draw(str(seed)) for seed in range(300)]
    for low, high in ((0.001, 0.01), (0.01, 0.1), (0.1, 1)):
        assert 70 < sum(low <= value < high for value in values) < 130  # 100, deviation 8.2


def test_whole_ends_draw_whole_numbers_each_once():
    runs = runs_of("model.args.width=1..4", "model.name=mlp", trials=30)
    assert sorted(run.values["model.args.width"] for run in runs) == [1, 2, 3, 4]
    zero = [Range(0, 0.5).draw(str(seed)) for seed in range(300)]
    assert all(0 <= value <= 0.5 for value in zero)
    assert 0.22 < statistics.fmean(zero) < 0.28


def test_short_names_tell_the_keys_apart():
    keys = ["model.name", "training.loss.name", "data_loader.train.args.batch_size", "seed",
            "data_loader.test.args.batch_size", "training.metrics.0"]  # fmt: skip
    assert list(short_names(keys).values()) == [
        "model.name", "loss.name", "train.args.batch_size", "seed", "test.args.batch_size",
        "metrics.0",
    ]  # fmt: skip


def test_a_folder_of_another_config_is_not_touched(config, write_config):
    path = write_config(config)
    prepare(runs_of("seed=[0,1]", path=path))
    prepare(runs_of("seed=[0,1,2]", path=path))  # more of the same
    with pytest.raises(UserError, match=r"seed=0: was made with training.epochs=2, now it is 5"):
        prepare(runs_of("seed=[0,1]", "training.epochs=5", path=path))
    there = Path(config["training"]["save_dir"]).glob("*/seed/*/config.json")
    assert {read_config(one).training.epochs for one in there} == {2}


# Running it ------------------------------------------------------------------------------------


def test_a_sweep_trains_tells_sorts_and_is_not_stopped_by_a_run_that_fails(sweeper, script, run):
    words = (f"{RATE}=[0.0001,0.01,fast]", "seed=[0,1]", "training.epochs=1")
    code, said = finish(sweeper(*words, "--jobs", "2"))
    assert code == 1
    assert said.count("FAILED, exit code 1") == 2
    assert said.count("learning_rate: expected a number, or a schedule") == 2
    assert "Traceback" not in said

    folder = Path(re.search(r"Look at (.+)/sweep.html", said)[1])
    runs = {path.parent.name: path.parent for path in folder.glob("*/config.json")}
    assert len(runs) == 6
    failing = [name for name in runs if "fast" in name]
    found = {}
    for name, path in sorted(runs.items()):
        if name not in failing:
            last = json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])
            found.setdefault(name.partition(",")[0], []).append(last["test_accuracy"])
    lines = said.partition("\n\n")[2].splitlines()[:4]
    assert lines[0].split() == ["learning_rate", "seeds", "test_accuracy", "±", "last", "epoch"]
    better, worse = found["learning_rate=0.01"], found["learning_rate=0.0001"]
    assert statistics.fmean(better) > statistics.fmean(worse)
    for line, rate, values in zip(lines[1:], ("0.01", "0.0001"), (better, worse), strict=False):
        mean, spread = f"{statistics.fmean(values):.4f}", statistics.stdev(values)
        assert line.split()[:3] == [rate, "2", mean]
        assert float(line.split()[3]) == pytest.approx(spread, rel=0.06)
    assert lines[3].split() == ["fast", "0", "of", "2", "-", "-"]

    rows = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert {row["run"] for row in rows if row["finished"] == "False"} == set(failing)
    assert [float(row["test_accuracy"]) for row in rows if row[RATE] == "0.01"] == better

    # Its runs are like any other: the bits of train.py's own, and taken by what takes a run.
    _, alone = run(f"{RATE}=0.01", "seed=1", "training.epochs=1")
    one = runs["learning_rate=0.01,seed=1"]
    assert same_arrays(read(latest(one))[0], read(latest(alone))[0])
    assert "the same to the bit" in compare([one, alone])
    done = script("test.py", "-w", one)
    assert done.returncode == 0, done.stderr

    before = (one / "report.html").stat().st_mtime_ns
    code, said = finish(sweeper("seed=[1,0]", f"{RATE}=[0.01,0.0001]", "training.epochs=1"))
    assert code == 0
    assert "4 runs, 0 of them to train" in said
    assert (one / "report.html").stat().st_mtime_ns == before


def test_killed_at_any_moment_a_sweep_goes_on_and_ends_with_the_same_bits(sweeper, config, run):
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
    assert not (folder / "seed=1" / "report.html").exists()

    code, said = finish(sweeper(*words))
    assert code == 0, said
    first, second = ((folder / f"seed={seed}" / "train.log").read_text() for seed in (0, 1))
    assert first.count("Start Training!") == 1
    assert second.count("Start Training!") == 2
    assert re.search(r"Going on from .*checkpoint-epoch_\d+", second)
    _, alone = run("seed=1", *words[1:])
    assert same_arrays(read(latest(folder / "seed=1"))[0], read(latest(alone))[0])
    figures = [(one / "metrics.jsonl").read_bytes() for one in (folder / "seed=1", alone)]
    assert figures[0] == figures[1]


def test_ctrl_c_saves_the_run_under_way_and_begins_no_other(sweeper, config):
    words = ("seed=[0,1]", "training.epochs=1000")
    folder = Path(config["training"]["save_dir"], "MNIST_Sample-sweep", "seed")
    process = sweeper(*words)
    wait_for(folder / "seed=0" / "checkpoint-epoch_1.params", process)
    process.send_signal(signal.SIGINT)
    code, said = finish(process)
    assert code == 128 + signal.SIGINT
    assert "seed=0: stopped" in said
    assert "Stopped; the same command goes on" in said
    assert "Stopped; go on with" in (folder / "seed=0" / "train.log").read_text()
    assert not (folder / "seed=1" / "train.log").exists()


def test_tasks_of_an_array_train_one_run_each(sweeper, config):
    words = ("seed=[0,1]", "training.epochs=1", "--name", "my array")
    code, said = finish(sweeper(*words, "--slurm"))
    assert code == 0, said
    path = Path(re.search(r"sbatch '(.+)'", said)[1])
    text = path.read_text()
    assert "#SBATCH --array=0-1\n" in text
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "1"}
    done = subprocess.run(["bash", path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (path.parent / "seed=1" / "report.html").exists()
    assert not (path.parent / "seed=0" / "train.log").exists()
    done = subprocess.run(["bash", path], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")  # it is finished

    assert finish(sweeper(*words, "--task", "2"))[1] == "error: --task 2: expected 0 to 1\n"
    assert finish(sweeper(*words, "--task", "0"))[0] == 0
    code, said = finish(sweeper(*words))
    assert code == 0
    assert "2 runs, 0 of them to train" in said


# What is told of it ----------------------------------------------------------------------------


@pytest.fixture
def measured(config, write_config):
    """Makes the runs of a sweep as they would lie there with these figures of each epoch."""

    def make(overrides, figures, monitor="max test_accuracy"):
        config["training"]["monitor"] = monitor
        runs = runs_of(*overrides, path=write_config(config))
        prepare(runs)
        for run, epochs in zip(runs, figures, strict=True):
            lines = [{"step": 8, "epoch": 1, "batch": 7, "train_loss": 1.0}]
            lines += [{"step": 8 * i, "epoch": i, **one} for i, one in enumerate(epochs, 1)]
            (run.folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
            if epochs:
                (run.folder / "report.html").write_text("")
        return runs

    return make


def test_the_best_epoch_counts_by_the_sense_of_the_monitor(measured):
    words = ["model.args.feat_dims=[[4],[8],[16]]", "seed=[0,1]"]
    losses = [[3.0, 1.0, 2.0], [5.0], [0.5, float("nan")], [0.75], [], []]
    runs = measured(words, [[{"test_loss": x} for x in one] for one in losses], "min test_loss")
    best, second, none = settings(runs)
    assert (best.values, best.mean, best.seeds) == ({"model.args.feat_dims": [8]}, 0.625, "2")
    assert best.spread == pytest.approx(0.25 / 2**0.5)
    assert (second.mean, second.last) == (3.0, 3.5)
    assert (none.seeds, none.spread) == ("0 of 2", None)
    assert [line.split()[0] for line in table(runs).splitlines()[1:]] == ["[8]", "[4]", "[16]"]


def test_a_run_whose_figures_are_spoilt_spoils_no_table(measured):
    runs = measured([f"{RATE}=[1,2]"], [[{"test_accuracy": 0.5}], [{"test_accuracy": 0.75}]])
    with open(runs[1].folder / "metrics.jsonl", "a") as file:
        file.write('\n{"step": 16, "epo')
    best, spoilt = settings(runs)
    assert (best.mean, spoilt.seeds) == (0.5, "1")
    assert table(runs).splitlines()[2].split() == ["2", "1", "-", "-"]
    write_results(runs[0].folder.parent, runs)


def test_copies_trained_at_once_bring_their_own_spread(measured):
    epoch = {"test_accuracy": 0.5, "test_accuracy_spread": 0.125}
    runs = measured([f"{RATE}=[1,2]", "training.seeds=5"], [[epoch], [epoch]])
    assert [(one.seeds, one.spread) for one in settings(runs)] == [("5", 0.125), ("5", 0.125)]


def test_the_page_shows_the_table_and_every_run_without_a_script_or_the_network(measured):
    values = [[0.9], [0.92], [0.95], [0.97], [0.5], []]
    figures = [[{"test_accuracy": x} for x in one] for one in values]
    runs = measured(["model.args.rule=[a,b&b,<script>]", "seed=[0,1]"], figures)
    page = write_results(runs[0].folder.parent, runs).read_text()
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in body.split("</tr>")[:3]]
    assert [row[:3] for row in cells] == [
        ["b&amp;b", "2", "0.9600"], ["a", "2", "0.9100"], ["&lt;script&gt;", "1 of 2", "0.5000"],
    ]  # fmt: skip
    assert body.count("/report.html") == 5
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert "http" not in page.replace('http-equiv="Content', "")


def test_what_wandb_makes_of_the_file_is_a_command_of_train_py(sweeper, config):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    tried = {
        "training.tensorboard": [True, False],
        "model.args.feat_dims": [[8, 16], [4]],
        RATE: [0.00001, 0.01],
        "training.clip_norm": [None, 1.0],
        "title": ["3"],
    }
    words = [f"{key}={json.dumps(values)}" for key, values in tried.items()]
    code, said = finish(sweeper(*words, "training.epochs=1", "--wandb", "--name", "x"))
    assert code == 0, said
    path = Path(re.search(r"wandb sweep (.+)", said)[1])
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


@pytest.mark.parametrize("value", [3, 0.1, "3", "a b", "true", True, None, [1, "a"], {"k": 1}])
def test_a_value_written_for_train_py_is_read_as_it_was(value):
    config = read_config(SAMPLE, [f"model.args.a={value_text(value)}"])
    assert config.model.args["a"] == value
    assert type(config.model.args["a"]) is type(value)
