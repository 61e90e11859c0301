"""Several trackers at once, one's own among them, and the files that every run writes."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tracking import json_lines, recorded, scalar_events
from training.common.records import read_lines
from training.config import read_config
from training.tracking.jsonl import LinesFile
from training.tracking.trackers import Trackers
from utils import UserError

RECORDER = "tests.helpers.tracking:Recorder"
FAILING = "tests.helpers.tracking:Failing"


def give_everything(trackers):
    """Gives trackers one thing of each kind but numbers."""
    trackers.image(1, "x", np.zeros((2, 2), np.uint8))
    trackers.text(1, "x", "a text")
    trackers.histogram(1, "x", np.arange(4))
    trackers.artifact(Path("x"))


# ---- a tracker of one's own ----


def test_a_tracker_of_ones_own_gets_all_that_a_run_records(run, config):
    named = {"name": RECORDER, "args": {"notes": "from the config"}}
    config["training"]["trackers"] = ["jsonl", named, "tensorboard"]
    code, folder = run()
    assert code == 0
    first, *scalars, artifact, last = recorded(folder)
    assert first == ["start", "MNIST_Sample", "from the config"]
    lines = json_lines(folder / "metrics.jsonl")
    assert scalars == [["scalars", line.pop("step"), line] for line in lines]
    assert artifact == ["artifact", str(folder / "checkpoint-epoch_2.params")]
    assert last == ["close"]
    assert scalar_events(folder).keys() >= {("test_accuracy", 8), ("test_accuracy", 16)}


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("tensorbord", "config.json: training.trackers.0.name: no tracker 'tensorbord' in "
         "training/tracking/backends.py; did you mean 'tensorboard'?"),
        ("nowhere:Tracker", "training.trackers.0.name: 'nowhere:Tracker': no module 'nowhere'"),
        ("tests.helpers.tracking:Recordr", "did you mean 'Recorder'?"),
        ({"name": RECORDER, "args": {"note": 1}},
         "training.trackers.0.args: Recorder takes no argument 'note'; did you mean 'notes'?"),
        ({"name": "tensorboard", "args": {"logdir": "x"}}, "no argument 'logdir'; it takes none"),
        ({"name": FAILING, "args": {}}, "missing a required argument: 'method'"),
    ],
)  # fmt: skip
def test_a_tracker_that_does_not_fit_is_refused_before_there_is_a_run(
    run, config, capsys, named, words
):
    config["training"]["trackers"] = [named]
    code, folder = run()
    assert (code, folder) == (1, None)
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_a_tracker_needs_scalars_and_no_other_method(start, tmp_path, caplog):
    with start("tests.helpers.tracking:OnlyScalars") as trackers:
        trackers.log({"step": 1, "loss": 0.5})
        give_everything(trackers)
    assert json_lines(tmp_path / "run" / "only.jsonl") == [{"step": 1, "loss": 0.5}]
    assert not caplog.records
    with pytest.raises(UserError, match=r"WithoutScalars has no method scalars\(self, step, val"):
        start("tests.helpers.tracking:WithoutScalars")


def test_a_tracker_that_fails_never_stops_the_run_and_is_named_once(run, config, capsys):
    failing = {"name": FAILING, "args": {"method": "scalars"}}
    config["training"]["trackers"] = [failing, RECORDER]
    code, folder = run()
    assert code == 0
    said = capsys.readouterr().out
    assert said.count("the tracker Failing failed") == 1
    assert "training.trackers.0: the tracker Failing failed: KeyError: 'a key of the tr" in said
    assert "tests/helpers/tracking.py:" in said
    assert 'raise KeyError("a key of the tracker")' in said
    lines = json_lines(folder / "metrics.jsonl")
    calls = [call for call in recorded(folder) if call[0] == "scalars"]
    assert calls == [["scalars", line.pop("step"), line] for line in lines]


@pytest.mark.parametrize("method", ["image", "text", "histogram", "artifact", "close"])
def test_an_error_in_any_method_is_a_warning_and_the_others_are_called(
    start, tmp_path, caplog, method
):
    named = {"name": FAILING, "args": {"method": method}}
    with start(named, {"name": RECORDER, "args": {"file": "other.jsonl"}}) as trackers:
        for _ in range(5):
            give_everything(trackers)
    (warning,) = caplog.messages
    assert "trackers.0: the tracker Failing failed: KeyError" in warning
    calls = [call[0] for call in recorded(tmp_path / "run", "other.jsonl")]
    assert calls == ["start", *["image", "text", "histogram", "artifact"] * 5, "close"]


def test_a_tracker_that_always_fails_is_called_three_times_and_closed(start, tmp_path):
    with start({"name": FAILING, "args": {"method": "image"}}) as trackers:
        for step in range(9):
            trackers.image(step, "x", np.zeros((2, 2), np.uint8))
    assert [call[0] for call in recorded(tmp_path / "run")] == ["start", *["fail"] * 3, "close"]


def test_all_trackers_are_closed_and_the_first_error_is_kept(start, tmp_path):
    closing = {"name": FAILING, "args": {"method": "close", "file": "other.jsonl"}}
    with pytest.raises(RuntimeError, match="in training"), start(closing, RECORDER):
        raise RuntimeError("in training")
    assert recorded(tmp_path / "run")[-1] == ["close"]


def test_trackers_already_started_are_closed_if_another_does_not_start(start, tmp_path):
    with pytest.raises(UserError, match=f"the tracker {FAILING} failed: Type"):
        start(RECORDER, {"name": FAILING, "args": {"method": 3}})
    assert recorded(tmp_path / "run")[-1] == ["close"]


# ---- resuming ----


# ---- the files ----


def test_metrics_jsonl_has_no_clock_times_and_no_matrices(start, tmp_path):
    began = time.time()
    with start() as trackers:
        trackers.log({"step": 8, "epoch": 1, "loss": 0.5, "confusion_matrix": np.eye(2)})
        trackers.time({"epoch": 1, "seconds": time.time() - began})
        sizes = trackers.sizes()
    metrics, timing = tmp_path / "run" / "metrics.jsonl", tmp_path / "run" / "timing.jsonl"
    assert metrics.read_text() == '{"step": 8, "epoch": 1, "loss": 0.5}\n'
    assert json_lines(timing)[0].keys() == {"epoch", "seconds"}
    assert sizes == {one.name: one.stat().st_size for one in (metrics, timing)}


def test_the_files_are_cut_back_to_their_sizes_in_the_checkpoint(start, tmp_path, caplog):
    with start() as trackers:
        trackers.log({"step": 1, "loss": 0.5})
        trackers.time({"epoch": 1})
        sizes = trackers.sizes()
        trackers.log({"step": 2, "loss": 0.25})
        trackers.time({"epoch": 2})
    with start(sizes=sizes) as trackers:
        trackers.log({"step": 3, "loss": 0.125})
    assert [line["step"] for line in json_lines(tmp_path / "run" / "metrics.jsonl")] == [1, 3]
    assert json_lines(tmp_path / "run" / "timing.jsonl") == [{"epoch": 1}]
    assert not caplog.records
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    with start(sizes=sizes):
        pass
    assert "metrics.jsonl: 25 bytes of metrics are missing" in caplog.text


def test_lines_that_a_full_disk_refuses_wait_in_memory(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    lines = LinesFile(path, 0)
    lines.append({"step": 1})
    lines.append({"step": 2})
    assert lines.size() == 2 * len('{"step": 1}\n')
    (warning,) = [record.message for record in caplog.records]
    assert "NOT WRITTEN: " in warning
    assert "No space left on device" in warning
    lines._file.close()
    path.unlink()
    lines._file = open(path, "ab", buffering=0)  # noqa: SIM115 # the disk has space again
    lines.append({"step": 3})
    lines.close()
    assert json_lines(path) == [{"step": 1}, {"step": 2}, {"step": 3}]


def test_a_process_that_writes_nothing_has_no_trackers(config, write_config):
    config["training"]["trackers"] = [RECORDER]
    with Trackers(read_config(write_config(config)), None, {}) as trackers:
        trackers.log({"step": 1, "loss": 0.5})
        trackers.time({"epoch": 1})
        give_everything(trackers)
        assert trackers.sizes() == {}


def test_a_reader_gets_todays_names_from_the_files_of_older_runs(tmp_path):
    path = tmp_path / "metrics.jsonl"
    old = {"step": 8, "test_loss": 0.5, "test_loss_spread": 0.125}
    path.write_text(json.dumps(old) + '\n{"step": 16, "test_loss_std": 0.0625}\n{"step": 2')
    assert read_lines(path) == [
        {"step": 8, "test_loss": 0.5, "test_loss_std": 0.125},
        {"step": 16, "test_loss_std": 0.0625},
    ]
