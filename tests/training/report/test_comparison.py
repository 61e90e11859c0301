"""Several runs on one page: `python -m training.report RUN RUN ...`."""

import json
import math
import re
import shutil

import numpy as np
import pytest

from tests.helpers.report_pages import (
    BROWSER,
    browsed,
    chart_of,
    page,
    points_of,
    read_lines,
    rows_of,
    sections,
    text,
    texts,
    write_lines,
)
from training.report.__main__ import main

HOSTILE = "</style><script>document.title = 'owned'</script>"


@pytest.fixture
def runs(tmp_path):
    """Three run folders; the second has another number of steps in an epoch and another seed."""
    return [
        make(tmp_path / "runs" / name, seed=seed, batches=batches, epochs=epochs)
        for name, seed, batches, epochs in (("a", 0, 8, 5), ("b", 1, 16, 3), ("c", 0, 8, 5))
    ]


def make(folder, seed, batches, epochs):
    folder.mkdir(parents=True)
    lines = []
    for epoch in range(1, epochs + 1):
        for batch in range(0, batches, 4):
            position = {"step": (epoch - 1) * batches + batch + 1, "epoch": epoch, "batch": batch}
            rates = {"learning_rate": 0.1 / epoch, "gradient_norm": 1.0 + seed}
            lines.append(position | {"train_loss": 2.0 / epoch} | rates)
        loss = 0.5 + (1 + seed) / epoch
        lines.append({
            "step": epoch * batches, "epoch": epoch, "epoch_train_loss": 1 / epoch,
            "test_loss": loss, "test_accuracy": 1 - loss / 10,
        })  # fmt: skip
    write_lines(folder / "metrics.jsonl", lines)
    timing = [{"epoch": epoch, "seconds": 1.0 + epoch + seed} for epoch in range(1, epochs + 1)]
    write_lines(folder / "timing.jsonl", timing)
    config = {"title": "T", "seed": seed, "training": {"epochs": epochs, "monitor": "min x"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_page(capsys, *arguments):
    """Runs the command; returns the path that it prints."""
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out.splitlines()[-1].removeprefix("Look at ")


def test_the_curves_of_every_run_have_the_values_of_its_metrics(runs, capsys):
    path = write_page(capsys, *runs)
    assert path == str(runs[0].parent / "comparison.html")
    tree = page(runs[0].parent / "comparison.html")
    expected = ["test loss", "test accuracy", "train loss", "learning rate", "gradient norm"]
    names = texts(tree, ".//figure//figcaption/h3")
    assert [name.removesuffix(" log scale") for name in names] == expected
    for index, (run, batches) in enumerate(zip(runs, (8, 16, 8), strict=True)):
        lines = read_lines(run / "metrics.jsonl")
        for name, key, kept in (
            ("test loss", "test_loss", [one for one in lines if "batch" not in one]),
            ("train loss", "epoch_train_loss", [one for one in lines if "batch" not in one]),
            ("learning rate", "learning_rate", [one for one in lines if "batch" in one]),
        ):
            x, y = points_of(chart_of(tree, name), f"run{index}")
            np.testing.assert_allclose(x, [one["step"] / batches for one in kept], atol=0.01)
            np.testing.assert_allclose(y, [one[key] for one in kept], rtol=0.01, atol=1e-3)
    legend = texts(chart_of(tree, "test loss"), "figcaption/ul/li")
    assert legend == ["1 0.7000", "2 1.1667", "3 0.7000"]
    assert texts(tree, ".//header/ul/li") == ["1 a", "2 b", "3 c"]


def test_the_tables_have_what_differs_and_the_last_metrics_with_the_best_bold(runs, capsys):
    tree = page(runs[0].parent / write_page(capsys, *runs))
    assert rows_of(tree, "Config") == {"seed": ["0", "1", "0"], "training.epochs": ["5", "3", "5"]}
    last = rows_of(tree, "Last epoch")
    assert last["test accuracy"] == ["0.9300", "0.8833", "0.9300"]
    assert last["seconds per epoch"] == ["4.0000", "4.0000", "4.0000"]
    section = next(one for one in tree.iter("section") if text(one.find("h2")) == "Last epoch")
    bold = {text(row.find("th")): len(row.findall("td/b")) for row in section.findall(".//tr")[1:]}
    assert bold["test loss"] == bold["test accuracy"] == 2
    assert bold["epoch"] == bold["seconds per epoch"] == 0
    assert "c: its metrics are the same to the bit" in texts(
        tree, ".//ul[@class='bit-comparison']/li"
    )


def test_the_page_is_one_file_without_external_references(runs, tmp_path, capsys):
    config = json.loads((runs[1] / "config.json").read_text())
    (runs[1] / "config.json").write_text(json.dumps(config | {HOSTILE: HOSTILE}))
    shutil.move(runs[2], runs[2].with_name("c & <b>d"))
    out = tmp_path / "elsewhere.html"
    assert write_page(capsys, runs[0].parent, "--out", out) == str(out)
    assert not (runs[0].parent / "comparison.html").exists()
    html = out.read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|<script|<link|<img|src=|href=", html)
    assert len(html) < 200_000
    tree = browsed(out)
    assert texts(tree, ".//header/ul/li")[2] == "3 c & <b>d"
    assert rows_of(tree, "Config")[HOSTILE] == ["-", HOSTILE, "-"]
    assert next(tree.iter("script"), None) is None


def test_a_page_is_made_of_runs_cut_short_empty_or_never_finite(runs, capsys):
    """Curves are by epoch, of the runs that finished one; if none did, by step."""
    lines = read_lines(runs[0] / "metrics.jsonl")
    write_lines(runs[1] / "metrics.jsonl", lines[:2])
    (runs[1] / "timing.jsonl").unlink()
    lines[-1]["test_loss"] = math.nan
    write_lines(runs[2] / "metrics.jsonl", lines)
    tree = page(runs[0].parent / write_page(capsys, *runs))
    assert len(points_of(chart_of(tree, "test loss"), "run2")[0]) == 4
    assert rows_of(tree, "Last epoch")["test loss"] == ["0.7000", "-", "NaN"]
    assert texts(chart_of(tree, "learning rate"), "figcaption/ul/li") == ["1 0.0200", "3 0.0200"]
    (runs[0] / "metrics.jsonl").unlink()
    tree = page(runs[0].parent / write_page(capsys, *runs[:2]))
    x, _ = points_of(chart_of(tree, "train loss"), "run1")
    np.testing.assert_allclose(x, [1, 5], atol=0.01)
    (runs[1] / "metrics.jsonl").unlink()
    write_page(capsys, *runs[:2])
    assert "Curves" not in sections(runs[0].parent / "comparison.html")


def test_thirty_runs_have_distinct_colours_and_dashes_as_far_as_there_are_enough(tmp_path, capsys):
    runs = [make(tmp_path / f"{seed:02}", seed, 8, 3) for seed in range(30)]
    tree = page(tmp_path / write_page(capsys, *runs))
    classes = [one.get("class") for one in tree.findall(".//header/ul/li")]
    assert len(set(classes)) == 30
    assert not any("again" in one for one in classes[:24])
    names = texts(chart_of(tree, "gradient norm"), "figcaption/ul/li")
    assert names == [f"{seed + 1} {1.0 + seed:.{4 if seed < 9 else 2}f}" for seed in range(30)]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_runs_are_refused_with_one_message(runs, count, capsys):
    assert main([str(one) for one in (runs[:count] or [runs[0] / "nothing"])]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert ("one run; expected two or more" if count else "no config.json is here") in message


@pytest.mark.skipif(BROWSER is None, reason="no browser here")
def test_a_browser_reads_the_page_as_it_was_write(runs, capsys):
    path = runs[0].parent / write_page(capsys, *runs)
    shown, source = browsed(path), page(path)
    for part in (".//h1", ".//h2", ".//h3", ".//td", ".//th", ".//li"):
        assert texts(shown, part) == texts(source, part) != []
