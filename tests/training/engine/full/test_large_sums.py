"""Running sums of many classes: a run that is stopped within an epoch is saved, and continues."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np

import train
from tests.helpers import labelled
from tests.helpers.project import ROOT, same_arrays
from training.checkpoint.naming import latest
from training.checkpoint.reading import read, read_meta
from training.common.measure import Cells
from training.engine import evaluation
from training.engine.progress import Progress
from training.metrics import aggregated
from training.tracking import metric_logger
from training.tracking.metric_logger import MetricAccumulator

CLASSES = 900  # twice two tables of them, as text, are more than the header of a checkpoint holds


class Stopping(labelled.Points):
    """Ends its own process with Ctrl-C after some examples, where STOP_AFTER says so."""

    read = 0

    def __getitem__(self, index):
        Stopping.read += 1
        if Stopping.read == int(os.environ.get("STOP_AFTER", 0)):
            os.kill(os.getpid(), signal.SIGINT)
        return super().__getitem__(index)


@aggregated(lambda total, weight: total)
def dense(logits, labels):
    """A statistic of a user's own, 800 kB for each batch."""
    return jnp.broadcast_to(logits[:, :1], (len(logits), 200_000)) + labels[:, None]


def test_a_run_with_a_large_confusion_matrix_is_saved_and_resumes_to_the_same_bits(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)

    def config(folder):
        config = labelled.small_config(tmp_path / folder, classes=CLASSES)
        config["model"]["args"]["classes"] = CLASSES
        config["data_loader"]["train"]["args"] = config["data_loader"]["train"]["args"] | {
            "dataset": {"name": f"{__name__}:Stopping", "args": {"classes": CLASSES}}
        }
        config["training"] |= {"metrics": ["confusion_matrix", "macro_f1"], "epochs": 1}
        return config | {"imports": ["tests"]}

    whole = train.fit(config("whole"))
    Stopping.read = 0
    monkeypatch.setenv("STOP_AFTER", "40")
    stopped = train.fit(config("stopped"))
    monkeypatch.delenv("STOP_AFTER")
    assert stopped.stopped == signal.SIGINT
    arrays, meta = read(latest(stopped.folder))
    assert meta["batch"] > 0
    names = [f"sums/epoch/{name}/0" for name in ("confusion_matrix", "macro_f1")]
    assert all(arrays[name].sum() == 8 * meta["batch"] for name in names)
    unread = Progress.from_meta(read_meta(latest(stopped.folder)))  # as a sweep reads it
    assert np.isnan(unread.epoch.sums["macro_f1"][0])
    resumed = train.fit(resume=str(stopped.folder))
    assert resumed.metrics.keys() == whole.metrics.keys()
    for name, value in whole.metrics.items():
        np.testing.assert_array_equal(resumed.metrics[name], value)
    ends = [read(latest(run.folder))[0] for run in (whole, resumed)]
    assert same_arrays(*ends)


def test_large_statistics_are_added_up_before_many_of_them_are_held(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = labelled.small_config(tmp_path)
    config["training"] |= {"metrics": [f"{__name__}:dense"], "epochs": 1, "log_every": "50 steps"}
    config["imports"] = ["tests"]
    held, add = [], MetricAccumulator.add

    def watched_add(sums, measured):
        held.append(sum(array.size == 200_000 for array in jax.live_arrays()))
        add(sums, measured)

    monkeypatch.setattr(MetricAccumulator, "add", watched_add)
    usual, most = train.fit(config), max(held)
    held.clear()
    for module in (metric_logger, evaluation):
        monkeypatch.setattr(module, "MOST_HELD", 2_000_000)
    frugal = train.fit(config)
    assert max(held) < 6 == most  # one for each batch
    assert frugal.metrics.keys() == usual.metrics.keys()
    for name, value in usual.metrics.items():
        np.testing.assert_array_equal(frugal.metrics[name], value)


def test_an_emptied_accumulator_counts_anew_in_the_same_memory():
    random, total = np.random.default_rng(0), MetricAccumulator()
    for _ in range(3):
        expected = np.zeros((40, 40))
        for _ in range(5):
            index = random.integers(0, 1600, 64)
            np.add.at(expected.reshape(-1), index, 0.5)
            cells = Cells(index, (40, 40), np.full(64, 0.5))
            total.add({"counts": (cells, np.float64(32))})
        found = total.results({"counts": lambda counts, weight: counts / weight})
        np.testing.assert_array_equal(found["counts"], expected / 160)
        before, total = total.sums["counts"][0], total.emptied()
        assert total.to_json() == {}
    total.add({"counts": (cells, np.float64(32))})
    assert total.sums["counts"][0] is before
    assert total.sums["counts"][0].sum() == 32
