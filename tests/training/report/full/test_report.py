"""The report of a run: large images, many classes, long runs."""

from collections import Counter

import numpy as np
import pytest

from tests.helpers.report_pages import (
    chart_of,
    page,
    pixels_of,
    points_of,
    sections,
    table_of,
    texts,
    write_lines,
)
from training.engine.evaluation import Predictions
from training.report.page import write_report

LIMIT = 2_000_000  # bytes of a report


@pytest.mark.parametrize("shape", [(3, 224, 224), (3, 900, 700), (1, 65, 500), (2, 32, 32)])
def test_images_of_noise_of_any_size_keep_the_report_small(tmp_path, shape):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, shape, dtype=np.uint8)
    logits, targets = random.normal(size=(200, 10)), np.arange(200) % 10
    predictions = Predictions(logits, targets, lambda i: image)
    path = write_report(tmp_path, predictions=predictions)
    assert path.stat().st_size < LIMIT
    for shown in page(path).findall(".//div[@class='mistakes']//img"):
        height, width = pixels_of(shown.get("src")).shape[:2]
        assert width / height == pytest.approx(shape[2] / shape[1], rel=0.05)


def test_with_many_classes_the_most_common_confusions_replace_the_matrix(tmp_path):
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
    assert sections(path)[0] == "Most common confusions"
    assert len(rows) == 25
    assert rows[:2] == [["kind 7", "kind 8", str(count[7, 8])], ["kind 998", "kind 3", "20"]]
    assert path.stat().st_size < LIMIT


def test_a_long_run_is_downsampled_within_its_extremes(tmp_path):
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
