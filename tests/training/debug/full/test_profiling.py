"""Runs with and without a second compilation, and one without --profile."""

import gzip
import json
import re

import pytest

from training.common.timing import LABELS


def test_a_run_without_profile_leaves_no_trace(run, capsys):
    code, folder = run()
    assert code == 0
    assert "waiting for data" not in capsys.readouterr().out
    assert not (folder / "profile").exists()


def test_a_run_that_compiles_once_does_not_warn(run, config, capsys):
    config["data_loader"]["train"]["args"]["validation_split"] = 0.1  # other batches to evaluate
    config["data_loader"]["test"]["args"]["batch_size"] = 100
    assert run("training.epochs=3")[0] == 0
    assert "WARNING" not in capsys.readouterr().out


def test_a_second_compilation_after_the_first_epoch_names_what_changed(run, config, capsys, mnist):
    dataset = {
        "name": "tests.helpers.networks:Changing",
        "args": {"root": str(mnist), "split": "train"},
    }
    config["data_loader"]["train"]["args"]["dataset"] = dataset
    code, _ = run("training.epochs=3")
    assert code == 0
    warnings = re.findall(r"WARNING\].* - (.*)", capsys.readouterr().out)
    assert warnings == [
        "update was compiled once more: "
        "batch['inputs'] is float32[128,1,28,28], it was uint8[128,1,28,28]"
    ]


def test_profile_divides_the_time_of_each_epoch_and_traces_a_few_updates(run, config, capsys):
    code, folder = run("--profile")
    assert code == 0
    console = capsys.readouterr().out
    names = "|".join(LABELS.values())
    for epoch in (1, 2):
        (line,) = re.findall(rf"Epoch {epoch}: (.* \d+\.\d+ s \(.*)", console)
        parts = re.findall(rf"({names}) (\d+\.\d+) s \((\d+\.\d)%\)", line)
        assert {"dispatch", "evaluation", "logging", "checkpoint", "waiting for data"} <= {
            name for name, _, _ in parts
        }
        assert sum(float(share) for _, _, share in parts) == pytest.approx(100, abs=0.5)
    (trace,) = folder.rglob("perfetto_trace.json.gz")
    assert str(trace) in console
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    traced = [event["args"]["step_num"] for event in events if event.get("name") == "update"]
    assert sorted(map(int, traced)) == [3, 4, 5, 6, 7]
    assert list(folder.rglob("*.xplane.pb"))  # what TensorBoard reads
