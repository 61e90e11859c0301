"""Reports of runs that somebody else has made, or that a full disk has cut."""

import json
import os

from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers.hostile import mutated
from tests.helpers.project import by_set, examples
from training.common.records import read_lines, read_record
from training.report.compare import compare
from training.report.page import write_report

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([10**400, -1, "\x1b[2J", "<script>", 1e308]),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=8), one, max_size=3),
    max_leaves=5,
)  # fmt: skip
NAMES = ["epoch", "step", "batch", "test_loss", "test_loss_std", "train_loss", "seconds",
         "learning_rate", "images_per_second", "test_accuracy"]  # fmt: skip
LINES = st.lists(
    ANYTHING | st.dictionaries(st.sampled_from(NAMES), st.integers(0, 9) | ANYTHING, max_size=6),
    max_size=6,
)
KEYS = ["title", "training", "seed", "packages", "parameters", "device", "config", "code", "data"]
RECORD = ANYTHING | st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=5)
GOOD = [{"step": 3, "epoch": 1, "batch": 2, "train_loss": 0.5},
        {"step": 8, "epoch": 1, "epoch_train_loss": 0.5, "test_loss": 0.25}]  # fmt: skip


def write_run(folder, metrics, timing=b"", config=b"{}", environment=b"{}"):
    folder.mkdir(exist_ok=True)
    contents = {"metrics.jsonl": metrics, "timing.jsonl": timing, "config.json": config,
                "environment.json": environment}  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def as_lines(values):
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


@examples(100)
@example(metrics=[], timing=[], config=None, environment={"parameters": 10**400})
@given(metrics=LINES, timing=LINES, config=RECORD, environment=RECORD)
def test_a_run_that_says_anything_has_a_report(
    tmp_path_factory, metrics, timing, config, environment
):
    base = tmp_path_factory.mktemp("runs")
    texts = (json.dumps(config).encode(), json.dumps(environment).encode())
    run = write_run(base / "run", as_lines([*metrics, *GOOD]), as_lines(timing), *texts)
    other = write_run(base / "other", as_lines(GOOD))
    page = write_report(run).read_text()
    assert "<script" not in page
    assert "\x1b" not in compare([run, other])


def test_lines_that_are_cut_or_no_utf_8_are_left_out_with_a_warning(tmp_path, caplog):
    content = as_lines(GOOD) + b"\xff\xfe\n[1]\n" + b"[" * 100_000 + b'\n{"step": 9, "ep'
    run = write_run(tmp_path / "run", content)
    assert read_lines(run / "metrics.jsonl") == GOOD
    assert "3 lines hold no numbers, line 3 first" in caplog.text
    caplog.clear()
    (run / "metrics.jsonl").write_bytes(as_lines(GOOD)[:-9])  # as a kill leaves it
    assert read_lines(run / "metrics.jsonl") == GOOD[:1]
    assert caplog.text == ""


def test_mutated_files_of_a_run_have_a_report(tmp_path):
    good = as_lines(GOOD * 3), as_lines([{"epoch": 1, "seconds": 2.5}]), b'{"title": "a"}', b"{}"
    for seed in range(by_set(20, 400)):
        run = write_run(tmp_path / "run", *(mutated(content, seed) for content in good))
        assert write_report(run).read_text().startswith("<!")
        assert isinstance(read_record(run / "config.json"), dict)
    assert os.listdir(tmp_path) == ["run"]
