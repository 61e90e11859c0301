"""How --profile divides the time of an epoch, and the warning of a second compilation."""

import gzip
import json
import re
import time

import pytest

from training.common.timing import LABELS, STOPWATCH, timed


def test_time_counts_once_for_the_innermost_mark():
    @timed("evaluation")
    def evaluate():
        time.sleep(0.02)

    STOPWATCH.restart()
    began = time.perf_counter()
    with timed("logging"):
        time.sleep(0.04)
        evaluate()
        evaluate()
    with pytest.raises(KeyError), timed("data"):
        {}["missing"]
    STOPWATCH.switch("other")
    total, seconds = time.perf_counter() - began, STOPWATCH.seconds
    assert sum(seconds.values()) == pytest.approx(total, abs=1e-3)
    assert 0.04 <= seconds["evaluation"] <= total - seconds["logging"]
    assert seconds["logging"] >= 0.04
    assert seconds["device"] == 0


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
