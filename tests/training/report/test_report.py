"""The report, judged by what a browser (or, where there is none, a parser) reads in the page."""

import base64
import csv
import io
import json
import math
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from training.engine.evaluation import Predictions
from training.provenance.record import environment
from training.report.page import write_predictions, write_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
HOSTILE = "</style><script>document.title = 'owned'</script><img src='https://evil.test/x.png'>"
VOID = {"meta", "link", "img", "br", "wbr", "hr", "input"}
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
            place = {"step": step, "epoch": epoch, "batch": batch}
            metrics.append(place | {"train_loss": loss} | rates)
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
    (folder / "environment.json").write_text(json.dumps({**environment(), "parameters": 13810}))
    return folder


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def epochs_of(folder):
    return [line for line in read_lines(folder / "metrics.jsonl") if "batch" not in line]


class TreeParser(HTMLParser):
    """Reads a page as a tree; fails if its tags do not nest."""

    def __init__(self, html):
        super().__init__()
        self.builder, self.open = ElementTree.TreeBuilder(), []
        self.feed(html)
        self.close()
        assert self.open == []
        self.tree = self.builder.close()

    def handle_starttag(self, tag, attributes):
        self.builder.start(tag, {name: value or "" for name, value in attributes})
        self.open.append(tag)
        if tag in VOID:
            self.handle_endtag(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.builder.end(tag)

    def handle_data(self, data):
        if self.open:
            self.builder.data(data)


def page(path):
    """The file as a tree."""
    return TreeParser(path.read_text(encoding="utf-8")).tree


def browser(path, *options):
    """Opens the file in a browser of its own, without a network; returns what it prints."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        return subprocess.run(
            [
                BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}",
                *options, path.as_uri(),
            ],
            capture_output=True, text=True, encoding="utf-8", timeout=120,
        ).stdout  # fmt: skip


def browsed(path):
    """The tree a browser makes of the file; where there is no browser, the parser's."""
    return TreeParser(browser(path, "--dump-dom")).tree if BROWSER else page(path)


def text(element):
    return " ".join("".join(element.itertext()).split())


def texts(tree, path):
    return [text(element) for element in tree.findall(path)]


def sections(path):
    return texts(page(path), ".//h2")


def table_of(tree):
    """The table of epochs, its exact values: [{"epoch": 1, "test loss": 0.3, ...}, ...]."""
    table = tree.find(".//table[@class='numbers']")
    rows = table.findall("tbody/tr")
    values = [[float(cell.get("value", "nan")) for cell in row.iter("data")] for row in rows]
    return [dict(zip(texts(table, "thead/tr/th"), row, strict=True)) for row in values]


def matrix_of(tree):
    """The counts of the confusion matrix (an empty cell is 0), the recalls and the precisions."""
    table = tree.find(".//table[@aria-label='confusion matrix']")
    rows = [texts(row, "td") for row in table.findall("tbody/tr")]
    counts = np.array([[int(cell or 0) for cell in row[:-1]] for row in rows])
    return counts, [row[-1] for row in rows], texts(table, "tfoot/tr/td")[:-1]


def chart_of(tree, name):
    return next(
        figure
        for figure in tree.findall(".//figure[@class='chart']")
        if text(figure.find("figcaption/h3")).removesuffix(" log scale") == name
    )


def points_of(chart, line, log=False):
    """The points of a chart's line as numbers, read off against the labels of its axes."""

    def axis(kind, side, scale):
        ticks = [
            (float(re.search(side + r":([\d.-]+)%", tick.get("style"))[1]), text(tick))
            for tick in chart.iter("span")
            if tick.get("class") == kind
        ]
        places, values = zip(*ticks, strict=True)
        values = scale(np.array([float(value.replace(",", "")) for value in values]))
        return np.poly1d(np.polyfit(places, values, 1))

    path = next(path for path in chart.iter("path") if path.get("class") == line)
    places = np.array(re.findall(r"([\d.-]+) ([\d.-]+)", path.get("d")), float)
    x = axis("x", "left", np.asarray)(places[:, 0])
    y = axis("y", "top", np.log10 if log else np.asarray)(places[:, 1])
    return x, 10**y if log else y


def test_the_table_holds_exactly_what_metrics_jsonl_and_timing_jsonl_hold(folder):
    table = table_of(page(write_report(folder)))
    timing = read_lines(folder / "timing.jsonl")
    assert len(table) == EPOCHS
    for row, line, clock in zip(table, epochs_of(folder), timing, strict=True):
        names = {name.removeprefix("epoch_").replace("_", " "): name for name in line | clock}
        del names["step"]
        assert row == {name: (line | clock)[key] for name, key in names.items()}


def test_the_headline_gives_the_last_and_the_best_of_each_test_figure(folder):
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
def test_the_monitor_of_the_config_says_which_way_is_better(tmp_path, sense, best):
    lines = [
        {"step": epoch, "epoch": epoch, "test_novelty": value}
        for epoch, value in enumerate((0.5, 0.25, 0.75, 0.625), start=1)
    ]
    write_lines(tmp_path / "metrics.jsonl", lines)
    config = {"training": {"monitor": f"{sense} test_novelty"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert f"best {best:.4f}" in texts(page(write_report(tmp_path)), ".//dl/div/dd")[1]


def test_the_curves_lie_where_their_axes_say(folder):
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


def test_the_confusion_matrix_counts_as_numpy_counts(folder, digits):
    tree = page(write_report(folder, predictions=digits))
    expected = np.zeros((10, 10), int)
    predicted = digits.logits.argmax(1)
    np.add.at(expected, (digits.targets, predicted), 1)
    counts, recall, precision = matrix_of(tree)
    np.testing.assert_array_equal(counts, expected)
    right = digits.targets == predicted
    assert recall == [f"{100 * right[digits.targets == label].mean():.1f}" for label in range(10)]
    assert precision == [f"{100 * right[predicted == label].mean():.1f}" for label in range(10)]
    assert f"{right.sum():,} of 10,000 right on the test set" in text(tree)


def test_the_mistakes_shown_are_the_25_most_confident_with_their_very_pictures(folder, digits):
    tree = page(write_report(folder, predictions=digits))
    exponentials = np.exp(digits.logits.astype(np.longdouble))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    predicted = probabilities.argmax(1)
    wrong = [i for i in range(10_000) if predicted[i] != digits.targets[i]]
    wrong.sort(key=lambda i: -probabilities[i].max())
    figures = tree.findall(".//div[@class='mistakes']/figure")
    assert len(figures) == 25 < len(wrong)
    for i, figure in zip(wrong, figures, strict=False):
        picture = figure.find("img")
        assert picture.get("alt") == f"example {i}"
        data = base64.b64decode(picture.get("src").removeprefix("data:image/png;base64,"))
        np.testing.assert_array_equal(Image.open(io.BytesIO(data)), digits.images[i, 0])
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


@pytest.mark.parametrize("shape", [(3, 224, 224), (3, 900, 700), (1, 65, 500), (2, 32, 32)])
def test_pictures_of_noise_of_any_size_keep_the_report_small(tmp_path, shape):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, shape, dtype=np.uint8)
    logits, targets = random.normal(size=(200, 10)), np.arange(200) % 10
    predictions = Predictions(logits, targets, lambda i: image)
    path = write_report(tmp_path, predictions=predictions)
    assert path.stat().st_size < LIMIT
    for picture in page(path).findall(".//div[@class='mistakes']//img"):
        data = base64.b64decode(picture.get("src").partition(",")[2])
        width, height = Image.open(io.BytesIO(data)).size
        assert width / height == pytest.approx(shape[2] / shape[1], rel=0.05)


def test_colours_and_channels_last_are_kept(tmp_path):
    red = np.zeros((3, 8, 8), np.uint8)
    red[0] = 200
    for picture in (red, np.moveaxis(red, 0, -1)):
        predictions = Predictions(np.eye(2), np.array([1, 1]), [picture] * 2)
        source = page(write_report(tmp_path, predictions=predictions)).find(".//img").get("src")
        image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert image.size == (8, 8)
        assert image.getpixel((3, 3)) == (200, 0, 0)


@pytest.mark.parametrize(
    "images",
    [None, lambda i: np.zeros(7, np.uint8), np.zeros((3, 5, 6), np.float32), [{"a": 1}] * 3],
)
def test_inputs_that_are_no_pictures_are_named_by_their_index(tmp_path, images):
    predictions = Predictions(np.array([[0, 9], [0, 1], [2, 0.0]]), np.array([0, 1, 1]), images)
    tree = page(write_report(tmp_path, predictions=predictions))
    assert tree.find(".//img") is None
    assert texts(tree, ".//div[@class='mistakes']/figure") == [
        "example 0 1 99.9 %true 0",
        "example 2 0 88.1 %true 1",
    ]


def test_a_perfect_classifier_has_no_section_of_mistakes(tmp_path):
    path = write_report(tmp_path, predictions=Predictions(np.eye(3), np.arange(3)))
    assert sections(path) == ["Confusions", "Calibration"]
    assert matrix_of(page(path))[1] == ["100"] * 3


def test_classes_that_never_occur_have_no_recall(tmp_path):
    predictions = Predictions(np.eye(3)[[0, 0]], np.array([0, 1]))
    assert matrix_of(page(write_report(tmp_path, predictions=predictions)))[1:] == (
        ["100", "0.0", "–"],
        ["50.0", "–", "–"],
    )


def test_many_classes_list_the_commonest_confusions_instead_of_a_matrix(tmp_path):
    random = np.random.default_rng(0)
    targets = random.integers(0, 1000, 5000)
    predicted = np.where(random.random(5000) < 0.8, targets, random.integers(0, 1000, 5000))
    targets[:30], predicted[:30] = 7, 8
    targets[30:50], predicted[30:50] = 998, 3
    logits = np.eye(1000, dtype=np.float32)[predicted]
    names = [f"kind {number}" for number in range(1000)]
    path = write_report(tmp_path, predictions=Predictions(logits, targets, classes=names))
    count = Counter(zip(targets.tolist(), predicted.tolist(), strict=True))
    rows = [texts(row, "td") for row in page(path).findall(".//table[@class='pairs']/tbody/tr")]
    assert len(rows) == 25
    assert rows[:2] == [["kind 7", "kind 8", str(count[7, 8])], ["kind 998", "kind 3", "20"]]
    assert path.stat().st_size < LIMIT


def test_hostile_text_stays_text(folder, digits):
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


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_drawn_light_and_dark(folder, digits, dark, tmp_path):
    path, shot = write_report(folder, predictions=digits), tmp_path / "shot.png"
    if BROWSER is None:
        assert len(page(path).findall(".//svg")) == 4
        assert "prefers-color-scheme: dark" in path.read_text(encoding="utf-8")
        return
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    browser(path, f"--screenshot={shot}", "--window-size=1280,2400", "--hide-scrollbars", scheme)
    picture = Image.open(shot).convert("RGB")
    assert (sum(picture.getpixel((0, 0))) < 200) == dark
    assert len(picture.getcolors(1 << 24)) > 50
    # Every stretch of the page has something on it: figures, charts, matrix, pictures, tables.
    lines = np.asarray(picture.convert("L"), int).reshape(24, -1)
    assert (np.ptp(lines, axis=1) > 60).all()


@pytest.mark.parametrize("missing", ["metrics", "timing", "config", "environment"])
def test_what_is_missing_is_left_out(folder, missing):
    next(folder.glob(f"{missing}.json*")).unlink()
    expected = {
        "metrics": ["Epochs", "Config", "Environment"],
        "timing": ["Curves", "Epochs", "Config", "Environment"],
        "config": ["Curves", "Epochs", "Environment"],
        "environment": ["Curves", "Epochs", "Config"],
    }
    assert sections(write_report(folder)) == expected[missing]


def test_an_empty_folder_has_a_report_with_its_name(tmp_path):
    path = write_report(tmp_path)
    assert sections(path) == []
    assert texts(page(path), ".//h1") == [tmp_path.name]


def test_a_generator_and_a_regression_have_no_confusions(tmp_path):
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


def test_a_line_cut_short_by_a_kill_is_passed_over(folder):
    whole = page(write_report(folder))
    for name in ("metrics", "timing"):
        with open(folder / f"{name}.jsonl", "ab") as file:
            file.write('{"step": 1181, "epoch": 11, "test_loss": 0.04, "é'.encode()[:-1])
    assert table_of(page(write_report(folder))) == table_of(whole)
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


def test_figures_that_are_never_finite_still_make_a_page(tmp_path):
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


def test_a_single_measurement_before_the_first_step_makes_a_page(tmp_path):
    write_lines(tmp_path / "metrics.jsonl", [{"step": 0, "test_loss": 2.5}])
    x, y = points_of(chart_of(page(write_report(tmp_path)), "loss"), "test")
    assert (x.round(2), y.round(2)) == (0, 2.5)


def test_a_long_run_is_summed_up_within_its_extremes(tmp_path):
    random = np.random.default_rng(0)
    losses = random.lognormal(size=20_000)
    losses[12_345] = 1000
    metrics = [
        {"step": step, "epoch": 1 + step // 20, "batch": step % 20, "train_loss": loss}
        for step, loss in enumerate(losses, start=1)
    ]
    metrics += [{"step": 20 * epoch, "epoch": epoch, "test_loss": 0.5} for epoch in range(1, 1001)]
    write_lines(tmp_path / "metrics.jsonl", metrics)
    path = write_report(tmp_path)
    tree = page(path)
    table, chart = table_of(tree), chart_of(tree, "loss")
    assert path.stat().st_size < LIMIT
    assert table[-1]["epoch"] == 1000
    assert len(table) <= 300
    y = points_of(chart, "interval band", log=True)[1]
    assert y.max() == pytest.approx(1000, rel=0.05)
    assert y.min() == pytest.approx(losses.min(), rel=0.05)
    y = points_of(chart, "interval faint", log=True)[1]
    assert np.median(y) == pytest.approx(np.median(losses), rel=0.1)


def test_predictions_csv_holds_every_probability(tmp_path, digits):
    names = ['"quoted"', "comma, separated", *map(str, range(2, 10))]
    write_predictions(tmp_path / "predictions.csv", digits._replace(classes=names))
    with open(tmp_path / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    exponentials = np.exp(digits.logits.astype(np.longdouble))
    expected = exponentials / exponentials.sum(1, keepdims=True)
    chances = np.array([[float(row[f"p_{name}"]) for name in names] for row in rows])
    np.testing.assert_allclose(chances, expected.astype(float), rtol=1e-5, atol=1e-12)
    assert [int(row["index"]) for row in rows] == list(range(10_000))
    assert [row["target"] for row in rows] == [names[target] for target in digits.targets]
    assert [row["prediction"] for row in rows] == [names[k] for k in expected.argmax(1)]
    np.testing.assert_array_equal([float(row["probability"]) for row in rows], chances.max(1))


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (
            np.zeros((4, 3)),
            np.zeros(5, int),
            r"logits of shape \(4, 3\) and targets of shape \(5,\)",
        ),
        (np.zeros(4), np.zeros(4, int), r"expected \(examples, classes\)"),
        (np.zeros((2, 3)), np.array([0, 3]), "targets from 0 to 3 came, expected 0 to 2"),
    ],
)
def test_predictions_that_do_not_fit_leave_the_report_there_was(tmp_path, logits, targets, message):
    before = write_report(tmp_path, title="before").read_bytes()
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path, predictions=Predictions(logits, targets))
    assert (tmp_path / "report.html").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_the_environment_names_the_versions_in_use_and_goes_into_json():
    found = json.loads(json.dumps(environment()))
    assert found["packages"]["numpy"] == np.__version__
    assert found["packages"]["pytest"] == pytest.__version__
    assert found["python"] == platform.python_version()
    assert found["processors"] == os.cpu_count()


def test_the_git_revision_says_whether_files_were_changed(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init")
    assert environment(tmp_path)["git_revision"] == "unknown"
    (tmp_path / "model.py").write_text("a = 1")
    git("add", "model.py")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "one")
    assert environment(tmp_path)["git_revision"] == git("rev-parse", "HEAD")
    (tmp_path / "model.py").write_text("a = 2")
    assert environment(tmp_path)["git_revision"] == git("rev-parse", "HEAD") + "-dirty"


def test_without_git_or_a_repository_the_revision_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment(tmp_path)["git_revision"] == "unknown"
    monkeypatch.setenv("PATH", "")
    assert environment()["git_revision"] == "unknown"
