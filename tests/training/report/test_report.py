"""The report of a run, checked by what a browser (or, without one, a parser) reads in the page."""

import csv
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from tests.helpers.project import by_set
from tests.helpers.report_pages import (
    BROWSER,
    HOSTILE,
    browsed,
    chart_of,
    epochs_of,
    matrix_of,
    page,
    pixels_of,
    points_of,
    read_lines,
    run_browser,
    sections,
    table_of,
    text,
    texts,
    write_lines,
)
from training.engine.evaluation import Predictions
from training.report.page import write_report
from training.report.predictions import write_predictions

ENVIRONMENT = {  # as a run records it
    "git_revision": "unknown", "python": "3.11.9", "jax": "0.6.0", "device": "1 × cpu",
    "processors": 2, "system": "Linux", "packages": {"jax": "0.6.0", "numpy": "2.2.0"},
}  # fmt: skip
LIMIT = 2_000_000  # bytes of a report
EPOCHS, BATCHES = 10, 118


@pytest.fixture
def folder(tmp_path):
    """A run folder as training leaves it."""
    random = np.random.default_rng(0)
    folder = tmp_path / "2025-11-23_15-30-12"
    folder.mkdir()
    metrics, timing = [], []
    for epoch in range(1, EPOCHS + 1):
        for batch in range(0, BATCHES, 22):
            step = (epoch - 1) * BATCHES + batch + 1
            loss = 5 * math.exp(-step / 60) + 0.1 * random.lognormal()
            rates = {"learning_rate": 0.003 / epoch, "gradient_norm": random.lognormal()}
            position = {"step": step, "epoch": epoch, "batch": batch}
            metrics.append(position | {"train_loss": loss} | rates)
        fall = math.exp(-epoch / 2) + 0.02 * random.random()
        metrics.append({
            "step": epoch * BATCHES, "epoch": epoch,
            "epoch_train_loss": 0.05 + 2 * fall, "epoch_train_accuracy": 0.99 - 0.3 * fall,
            "epoch_train_learning_rate": 0.002 / epoch,
            "test_loss": 0.06 + fall, "test_accuracy": 0.98 - 0.2 * fall,
        })  # fmt: skip
        timing.append({"epoch": epoch, "seconds": 4.25, "images_per_second": 14000.0 + epoch})
    write_lines(folder / "metrics.jsonl", metrics)
    write_lines(folder / "timing.jsonl", timing)
    config = {"title": "MNIST_Sample", "training": {"epochs": EPOCHS, "optimizer": {"args": [3]}}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT | {"parameters": 13810}))
    return folder


def test_the_table_has_exactly_the_values_of_metrics_jsonl_and_timing_jsonl(folder):
    table = table_of(page(write_report(folder)))
    timing = read_lines(folder / "timing.jsonl")
    assert len(table) == EPOCHS
    for row, line, time in zip(table, epochs_of(folder), timing, strict=True):
        names = {name.removeprefix("epoch_").replace("_", " "): name for name in line | time}
        del names["step"]
        assert row == {name: (line | time)[key] for name, key in names.items()}


def test_the_headline_has_the_last_and_the_best_value_of_each_test_metric(folder):
    tree, lines = page(write_report(folder)), epochs_of(folder)
    shown = {text(div.find("dt")): texts(div, "dd") for div in tree.findall(".//dl/div")}
    accuracies = [line["test_accuracy"] for line in lines]
    losses = [line["test_loss"] for line in lines]
    best = f"best {max(accuracies):.4f}, epoch {np.argmax(accuracies) + 1}"
    assert shown["test accuracy"] == [f"{accuracies[-1]:.4f}", best]
    best = f"best {min(losses):.4f}, epoch {np.argmin(losses) + 1}"
    assert shown["test loss"] == [f"{losses[-1]:.4f}", best]
    assert shown["parameters"][0] == "13,810"
    assert shown["epochs"] == ["10", "of 10 planned"]
    assert shown["time"] == ["42.5 s", "4.25 s per epoch"]
    assert shown["images per second"][0] in ("14,005", "14,006")


@pytest.mark.parametrize(("sense", "best"), [("min", 0.25), ("max", 0.75)])
def test_the_monitor_of_the_config_decides_whether_lower_is_better(tmp_path, sense, best):
    lines = [
        {"step": epoch, "epoch": epoch, "test_novelty": value}
        for epoch, value in enumerate((0.5, 0.25, 0.75, 0.625), start=1)
    ]
    write_lines(tmp_path / "metrics.jsonl", lines)
    config = {"training": {"monitor": f"{sense} test_novelty"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert f"best {best:.4f}" in texts(page(write_report(tmp_path)), ".//dl/div/dd")[1]


def test_the_curves_have_the_values_of_metrics_jsonl_by_their_axes(folder):
    tree, lines = page(write_report(folder)), read_lines(folder / "metrics.jsonl")
    batches = [line for line in lines if "batch" in line]
    epochs = [line for line in lines if "batch" not in line]
    curves = [
        ("accuracy", "test", epochs, "test_accuracy", False),
        ("accuracy", "train", epochs, "epoch_train_accuracy", False),
        ("loss", "test", epochs, "test_loss", True),
        ("loss", "interval faint", batches, "train_loss", True),
        ("learning rate", "only", batches, "learning_rate", False),
    ]
    for name, line, source, key, log in curves:
        chart = chart_of(tree, name)
        assert ("log scale" in text(chart)) == log
        x, y = points_of(chart, line, log)
        np.testing.assert_allclose(x, [line["step"] / BATCHES for line in source], atol=0.01)
        values = [line[key] for line in source]
        np.testing.assert_allclose(y, values, rtol=0.01, atol=1e-3 * max(values))
    # The mean learning rate of an epoch is no curve of its own.
    assert texts(chart_of(tree, "learning rate"), "figcaption/ul/li") == ["0.0003"]


def test_hovering_shows_the_values_of_each_epoch(folder):
    chart = chart_of(page(write_report(folder)), "loss")
    readouts = chart.findall(".//div[@class='hover']/div")
    for epoch, (readout, line) in enumerate(zip(readouts, epochs_of(folder), strict=True), start=1):
        values = [f"train {line['epoch_train_loss']:.4f}", f"test {line['test_loss']:.4f}"]
        assert text(readout) == f"epoch {epoch}" + "".join(values)


def test_the_confusion_matrix_is_that_of_numpy(folder, digits):
    tree = page(write_report(folder, predictions=digits))
    expected = np.zeros((10, 10), int)
    predicted = digits.logits.argmax(1)
    np.add.at(expected, (digits.targets, predicted), 1)
    counts, recall, precision = matrix_of(tree)
    np.testing.assert_array_equal(counts, expected)
    correct = digits.targets == predicted
    assert recall == [f"{100 * correct[digits.targets == label].mean():.1f}" for label in range(10)]
    assert precision == [f"{100 * correct[predicted == label].mean():.1f}" for label in range(10)]
    assert f"{correct.sum():,} of 10,000 correct on the test set" in text(tree)


def test_the_mistakes_shown_are_the_25_most_confident_with_their_exact_images(folder, digits):
    tree = page(write_report(folder, predictions=digits))
    exponentials = np.exp(digits.logits.astype(np.longdouble))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    predicted = probabilities.argmax(1)
    wrong = [i for i in range(10_000) if predicted[i] != digits.targets[i]]
    wrong.sort(key=lambda i: -probabilities[i].max())
    figures = tree.findall(".//div[@class='mistakes']/figure")
    assert len(figures) == 25 < len(wrong)
    for i, figure in zip(wrong, figures, strict=False):
        image = figure.find("img")
        assert image.get("alt") == f"example {i}"
        assert image.get("src").startswith("data:image/png;base64,")
        np.testing.assert_array_equal(pixels_of(image.get("src")), digits.images[i, 0])
        share = f"{min(100 * probabilities[i].max(), 99.9):.1f} %"
        assert text(figure.find("figcaption")) == f"{predicted[i]} {share}true {digits.targets[i]}"


def test_the_report_is_one_small_file_that_refers_to_nothing_outside(folder, digits):
    path = write_report(folder, predictions=digits)
    assert path == folder / "report.html"
    assert list(folder.glob("report*")) == [path]
    assert path.stat().st_size < LIMIT
    html = path.read_text(encoding="utf-8")
    references = re.findall(r"(?:src|href|srcset|action|data)\s*=\s*[\"']?(.{10})", html)
    assert set(references) == {"data:image"}
    assert not re.search(r"url\(|@import|<script|<link|<iframe|<object|<base", html)
    policy = page(path).find(".//meta[@http-equiv='Content-Security-Policy']").get("content")
    assert policy.startswith("default-src 'none'")


def test_colours_and_channels_last_are_kept(tmp_path):
    red = np.zeros((3, 8, 8), np.uint8)
    red[0] = 200
    for image in (red, np.moveaxis(red, 0, -1)):
        predictions = Predictions(np.eye(2), np.array([1, 1]), [image] * 2)
        source = page(write_report(tmp_path, predictions=predictions)).find(".//img").get("src")
        shown = pixels_of(source)
        assert shown.shape[:2] == (8, 8)
        assert tuple(shown[3, 3]) == (200, 0, 0)


@pytest.mark.parametrize(
    "images",
    [None, lambda i: np.zeros(7, np.uint8), np.zeros((3, 5, 6), np.float32), [{"a": 1}] * 3],
)
def test_inputs_that_are_not_images_are_named_by_their_index(tmp_path, images):
    predictions = Predictions(np.array([[0, 9], [0, 1], [2, 0.0]]), np.array([0, 1, 1]), images)
    tree = page(write_report(tmp_path, predictions=predictions))
    assert tree.find(".//img") is None
    assert texts(tree, ".//div[@class='mistakes']/figure") == [
        "example 0 1 99.9 %true 0",
        "example 2 0 88.1 %true 1",
    ]


def test_the_report_of_a_perfect_classifier_has_no_section_of_mistakes(tmp_path):
    path = write_report(tmp_path, predictions=Predictions(np.eye(3), np.arange(3)))
    assert sections(path) == ["Confusion matrix", "Calibration"]
    assert matrix_of(page(path))[1] == ["100"] * 3


def test_classes_that_never_occur_have_no_recall(tmp_path):
    predictions = Predictions(np.eye(3)[[0, 0]], np.array([0, 1]))
    assert matrix_of(page(write_report(tmp_path, predictions=predictions)))[1:] == (
        ["100", "0.0", "–"],
        ["50.0", "–", "–"],
    )


def test_hostile_text_is_escaped(folder, digits):
    metrics = read_lines(folder / "metrics.jsonl")
    write_lines(folder / "metrics.jsonl", [*metrics, {"step": 9, "epoch": 1, HOSTILE: 1.0}])
    (folder / "config.json").write_text(json.dumps({HOSTILE: {HOSTILE: [HOSTILE]}}))
    (folder / "environment.json").write_text(json.dumps({"system": HOSTILE}))
    predictions = digits._replace(classes=[HOSTILE] * 10, source=HOSTILE)
    tree = browsed(write_report(folder, predictions=predictions, title=HOSTILE))
    assert text(tree.find(".//h1")) == HOSTILE
    assert text(tree.find(".//title")).startswith(HOSTILE)
    assert next(tree.iter("script"), None) is None
    assert {image.get("src")[:10] for image in tree.iter("img")} == {"data:image"}
    assert len(list(tree.iter("style"))) == 1


def test_a_browser_reads_the_page_as_it_was_written(folder, digits):
    path = write_report(folder, predictions=digits)
    written, read = page(path), browsed(path)
    for part in (".//h1", ".//h2", ".//h3", ".//td", ".//th", ".//dd", ".//li", ".//figcaption"):
        assert texts(read, part) == texts(written, part) != []
    assert table_of(read) == table_of(written)


@pytest.mark.parametrize("dark", by_set([False], [False, True]))
def test_the_page_is_rendered_light_and_dark(folder, digits, dark, tmp_path):
    path, shot = write_report(folder, predictions=digits), tmp_path / "shot.png"
    if BROWSER is None:
        shown = [chart.get("aria-label").split()[0] for chart in page(path).findall(".//svg")]
        assert shown == ["loss:", "accuracy:", "learning", "gradient", "Reliability"]
        assert "prefers-color-scheme: dark" in path.read_text(encoding="utf-8")
        return
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    run_browser(
        path, f"--screenshot={shot}", "--window-size=1280,2400", "--hide-scrollbars", scheme
    )
    image = Image.open(shot).convert("RGB")
    assert (sum(image.getpixel((0, 0))) < 200) == dark
    assert len(image.getcolors(1 << 24)) > 50
    # No part of the page is blank: numbers, charts, matrix, images, tables.
    lines = np.asarray(image.convert("L"), int).reshape(24, -1)
    assert (np.ptp(lines, axis=1) > 60).all()


@pytest.mark.parametrize("missing", ["metrics", "timing", "config", "environment"])
def test_sections_of_missing_files_are_left_out(folder, missing):
    next(folder.glob(f"{missing}.json*")).unlink()
    expected = {
        "metrics": ["Epochs", "Config", "Environment"],
        "timing": ["Curves", "Epochs", "Config", "Environment"],
        "config": ["Curves", "Epochs", "Environment"],
        "environment": ["Curves", "Epochs", "Config"],
    }
    assert sections(write_report(folder)) == expected[missing]


def test_the_report_of_an_empty_folder_has_its_name(tmp_path):
    path = write_report(tmp_path)
    assert sections(path) == []
    assert texts(page(path), ".//h1") == [tmp_path.name]


def test_reports_of_a_generator_and_a_regression_have_no_confusion_matrix(tmp_path):
    metrics = []
    for step in range(1, 21):
        losses = {"train_generator_loss": 1 + 1 / step, "train_discriminator_loss": 0.5}
        rate = {"generator_learning_rate": 2e-4}
        metrics.append({"step": step, "epoch": 1, "batch": step - 1} | losses | rate)
    metrics.append({"step": 20, "epoch": 1, "test_mean_absolute_error": 0.5, "curve": [1, 2]})
    write_lines(tmp_path / "metrics.jsonl", metrics)
    path = write_report(tmp_path)
    assert sections(path) == ["Curves", "Epochs"]
    for name in ("generator loss", "discriminator loss", "generator learning rate"):
        line = "interval" if name.endswith("loss") else "only"
        assert len(points_of(chart_of(page(path), name), line)[0]) == 20
    assert table_of(page(path)) == [{"epoch": 1, "test mean absolute error": 0.5}]


def test_a_line_cut_short_by_a_kill_is_skipped(folder):
    before = page(write_report(folder))
    for name in ("metrics", "timing"):
        with open(folder / f"{name}.jsonl", "ab") as file:
            file.write('{"step": 1181, "epoch": 11, "test_loss": 0.04, "é'.encode()[:-1])
    assert table_of(page(write_report(folder))) == table_of(before)
    for name in ("config", "environment"):
        (folder / f"{name}.json").write_text('{"title": "MNI')
    assert sections(write_report(folder)) == ["Curves", "Epochs"]


def test_a_run_killed_in_its_first_epoch_has_curves_by_step(folder):
    lines = read_lines(folder / "metrics.jsonl")[:4]
    write_lines(folder / "metrics.jsonl", lines)
    (folder / "timing.jsonl").unlink()
    path = write_report(folder)
    assert sections(path) == ["Curves", "Config", "Environment"]
    x, y = points_of(chart_of(page(path), "loss"), "interval")
    np.testing.assert_allclose(x, [line["step"] for line in lines], atol=0.1)
    np.testing.assert_allclose(y, [line["train_loss"] for line in lines], rtol=0.01)


def test_values_that_are_not_finite_leave_a_gap_and_are_counted(folder):
    lines = read_lines(folder / "metrics.jsonl")
    odd = {1: math.nan, 5: math.inf, 10: None}
    for line in lines:
        if "batch" not in line and line["epoch"] in odd:
            line["test_loss"] = odd[line["epoch"]]
    write_lines(folder / "metrics.jsonl", lines)
    tree = page(write_report(folder))
    chart = chart_of(tree, "loss")
    assert texts(chart, "p") == ["3 values not finite"]
    x, _ = points_of(chart, "test", log=True)
    np.testing.assert_allclose(x, [2, 3, 4, 6, 7, 8, 9], atol=0.01)
    path = next(path for path in chart.iter("path") if path.get("class") == "test")
    assert path.get("d").count("M") == 2
    shown = {text(div.find("dt")): texts(div, "dd") for div in tree.findall(".//dl/div")}
    finite = {line["epoch"]: line["test_loss"] for line in epochs_of(folder) if line["test_loss"]}
    finite = {epoch: value for epoch, value in finite.items() if math.isfinite(value)}
    best = min(finite, key=finite.get)
    assert shown["test loss"] == ["NaN", f"best {finite[best]:.4f}, epoch {best}"]


def test_a_page_is_made_of_metrics_that_are_never_finite(tmp_path):
    lines = [{"step": step, "epoch": step, "test_loss": math.nan} for step in (1, 2)]
    write_lines(tmp_path / "metrics.jsonl", lines)
    predictions = Predictions(np.full((4, 2), np.nan), np.array([0, 1, 0, 1]))
    tree = page(write_report(tmp_path, predictions=predictions))
    assert texts(chart_of(tree, "loss"), "p") == ["2 values not finite"]
    assert text(tree.find(".//div[@class='mistakes']/figure")) == "example 1 0 – %true 1"


@pytest.mark.parametrize("values", [[0.1] * 3, [0.0] * 3, [-2.5, 3.0, 1.0], [1e-9, 3e-9, 2e-9]])
def test_axes_fit_constant_negative_and_tiny_values(tmp_path, values):
    lines = [{"step": i, "epoch": i, "test_score": y} for i, y in enumerate(values, start=1)]
    write_lines(tmp_path / "metrics.jsonl", lines)
    x, y = points_of(chart_of(page(write_report(tmp_path)), "score"), "test")
    np.testing.assert_allclose(x, [1, 2, 3], atol=0.01)
    np.testing.assert_allclose(y, values, atol=0.01 * (max(map(abs, values)) or 1))


def test_a_page_is_made_of_a_single_value_before_the_first_step(tmp_path):
    write_lines(tmp_path / "metrics.jsonl", [{"step": 0, "test_loss": 2.5}])
    x, y = points_of(chart_of(page(write_report(tmp_path)), "loss"), "test")
    assert (x.round(2), y.round(2)) == (0, 2.5)


def test_predictions_csv_has_every_probability(tmp_path, digits):
    names = ['"quoted"', "comma, separated", *map(str, range(2, 10))]
    write_predictions(tmp_path / "predictions.csv", digits._replace(classes=names))
    with open(tmp_path / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    exponentials = np.exp(digits.logits.astype(np.longdouble))
    expected = exponentials / exponentials.sum(1, keepdims=True)
    probabilities = np.array([[float(row[f"p_{name}"]) for name in names] for row in rows])
    np.testing.assert_allclose(probabilities, expected.astype(float), rtol=1e-5, atol=1e-12)
    assert [int(row["index"]) for row in rows] == list(range(10_000))
    assert [row["target"] for row in rows] == [names[target] for target in digits.targets]
    assert [row["prediction"] for row in rows] == [names[k] for k in expected.argmax(1)]
    np.testing.assert_array_equal([float(row["probability"]) for row in rows], probabilities.max(1))


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (
            np.zeros((4, 3)),
            np.zeros(5, int),
            r"logits of shape \(4, 3\) and targets of shape \(5,\)",
        ),
        (np.zeros(4), np.zeros(4, int), r"expected \(examples, classes\)"),
        (np.zeros((2, 3)), np.array([0, 3]), "got targets from 0 to 3, expected 0 to 2"),
    ],
)
def test_predictions_of_wrong_shapes_keep_the_previous_report(tmp_path, logits, targets, message):
    before = write_report(tmp_path, title="before").read_bytes()
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path, predictions=Predictions(logits, targets))
    assert (tmp_path / "report.html").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
