"""Runs of train.py on one page: `python -m training.report RUN RUN`."""

from tests.helpers.report_pages import chart_of, page, read_lines, rows_of, texts
from training.report.__main__ import main


def test_runs_of_train_py_are_compared(run):
    _, first = run("training.epochs=1")
    _, other = run("training.epochs=1", "seed=1")
    assert main([str(first), str(other)]) == 0
    tree = page(first.parent / "comparison.html")
    ends = [read_lines(one / "metrics.jsonl")[-1] for one in (first, other)]
    expected = [f"{end['test_accuracy']:.4f}" for end in ends]
    assert rows_of(tree, "Last epoch")["test accuracy"] == expected
    assert rows_of(tree, "Config") == {"seed": ["0", "1"]}
    for name in ("learning rate", "gradient norm"):
        assert len(texts(chart_of(tree, name), "figcaption/ul/li")) == 2
