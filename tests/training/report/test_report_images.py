"""What the report shows of data, augmentation, first layers and calibration."""

import json
import re
import tracemalloc

import jax
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from data_loader.transforms import random_shift
from tests.helpers.project import BATCH_SIZE, ROOT, by_set
from tests.helpers.report_pages import page, pixels_of, sections, text, texts
from training.config import read_config
from training.engine.build import build
from training.engine.evaluation import Predictions
from training.report.classification import BINS, calibrate, summarize, wilson_interval
from training.report.filters import NEGATIVE, POSITIVE, first_layer_filters, first_weights
from training.report.gallery import VARIATIONS, Gallery, collect_gallery
from training.report.page import write_report

SIDE = 28  # pixels


# ---- calibration ----


@pytest.mark.parametrize("examples", [1, 7, 5000])
def test_calibration_is_that_of_scikit_learn_and_its_error_that_of_the_paper(examples):
    random = np.random.default_rng(examples)
    confidence = random.uniform(0.1, 1, examples)
    confidence[: examples // 3] = (
        np.round(confidence[: examples // 3] * BINS) / BINS
    )  # on the edges
    correct = random.random(examples) < confidence**1.3
    found = calibrate(confidence, correct)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=BINS)
    np.testing.assert_allclose([one["accuracy"] for one in found["bins"]], accuracy)
    np.testing.assert_allclose([one["confidence"] for one in found["bins"]], mean)
    assert sum(one["examples"] for one in found["bins"]) == examples
    error = 0.0  # equation 3 of the paper, (low, high] being a bin
    for low in np.arange(BINS) / BINS:
        inside = (confidence > low + 1e-12) & (confidence <= low + 1 / BINS + 1e-12)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert found["error"] == pytest.approx(error, abs=1e-9)


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (1, 1), (3, 10), (990, 1000)])
def test_the_interval_of_a_bin_is_that_of_wilson(hits, count):
    expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(wilson_interval(hits, count), expected, atol=1e-4)


def test_non_finite_confidences_are_left_out_of_the_calibration():
    confidence, correct = np.array([0.9, np.nan, 0.7]), np.array([True, True, False])
    found = calibrate(confidence, correct)
    assert sum(one["examples"] for one in found["bins"]) == 2
    assert found["accuracy"] == 0.5
    assert calibrate(np.full(3, np.nan), correct) is None


def test_the_reliability_diagram_and_its_table_have_the_same_values(tmp_path, digits):
    tree = page(write_report(tmp_path, predictions=digits))
    table = next(one for one in tree.iter("table") if "accuracy by" in one.get("aria-label", ""))
    rows = [texts(row, "td") for row in table.findall("tbody/tr")]
    figure = next(
        one for one in tree.iter("figure")
        if text(one.find("figcaption/h3") if one.find("figcaption/h3") is not None else one)
        == "accuracy by confidence"
    )  # fmt: skip
    dots = next(path for path in figure.iter("path") if path.get("class") == "test dots")
    points = np.array(re.findall(r"M([\d.]+) ([\d.]+)h0", dots.get("d")), float)
    assert len(rows) == len(points) > 5
    numbers = [[float(cell.replace(",", "")) for cell in row[1:4]] for row in rows]
    examples, confidence, accuracy = np.array(numbers).T
    np.testing.assert_allclose(points[:, 0], confidence, atol=0.06)
    np.testing.assert_allclose(100 - points[:, 1], accuracy, atol=0.06)
    assert examples.sum() == 10_000
    gap = (examples * abs(confidence - accuracy)).sum() / 10_000
    shown = float(re.search(r"calibration error is ([\d.]+) %", text(tree))[1])
    assert shown == pytest.approx(gap, abs=0.06)


# ---- samples ----


def test_the_samples_of_a_class_are_exactly_its_first_examples(tmp_path, digits):
    tree = page(write_report(tmp_path, predictions=digits))
    strips = tree.findall(".//div[@class='samples']/img")
    heads = tree.findall(".//div[@class='samples']/div")
    assert len(strips) == 10
    for label, (head, strip) in enumerate(zip(heads, strips, strict=True)):
        indices = np.flatnonzero(digits.targets == label)
        assert texts(head, "*") == [str(label), f"{len(indices):,}"]
        assert strip.get("alt") == f"10 examples of {label}"
        for shown, index in zip(tiles(pixels_of(strip.get("src")), SIDE), indices, strict=False):
            np.testing.assert_array_equal(shown[..., 0], digits.images[index, 0])


def test_samples_of_many_classes_and_of_photos_are_few_and_small(tmp_path):
    random = np.random.default_rng(0)
    photo = random.integers(0, 256, (3, 300, 200), dtype=np.uint8)
    targets = np.arange(400) % 200
    predictions = Predictions(np.eye(200)[targets], targets, lambda index: photo)
    path = write_report(tmp_path, predictions=predictions)
    strips = page(path).findall(".//div[@class='samples']/img")
    assert len(strips) == 30
    assert "30 of 200 classes" in text(page(path))
    assert pixels_of(strips[0].get("src")).shape[0] <= 64
    assert path.stat().st_size < 1_000_000


# ---- augmentation ----


def test_augmentation_is_shown_before_and_after(config, write_config):
    _, found = gallery_of(write_config(config))
    assert len(found.augmented) == 8
    dataset = build(read_config(write_config(config))).loaders["train"].dataset
    varied = 0
    for one in found.augmented:
        before, row = dataset[one["index"]][0][0], tiles(pixels_of(one["after"]), SIDE)
        np.testing.assert_array_equal(pixels_of(one["before"])[..., 0], before)
        assert len(row) == VARIATIONS
        padded = np.pad(before, 1)
        shifts = [padded[y : y + SIDE, x : x + SIDE] for y in range(3) for x in range(3)]
        for shown in row:
            assert any(np.array_equal(shown[..., 0], shift) for shift in shifts)
            varied += not np.array_equal(shown[..., 0], before)
    assert varied > 8 * VARIATIONS / 2


def brightness(x, *, key):
    """Returns numbers around zero instead of pixels."""
    return x * jax.random.uniform(key, (len(x), 1, 1, 1)) - 100.0


def whole_batches(x, *, key):
    """Takes batches of BATCH_SIZE only."""
    if len(x) != BATCH_SIZE:
        raise ValueError(f"{BATCH_SIZE} expected")
    return random_shift(x, 1, key=key)


def test_augmentation_to_other_numbers_is_shown_from_black_to_white(config, write_config):
    config["data_loader"]["augment"] = {"name": f"{__name__}:brightness"}
    _, found = gallery_of(write_config(config))
    pixels = np.concatenate([pixels_of(one["after"])[..., 0].ravel() for one in found.augmented])
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert len(np.unique(pixels)) > 100


def test_augmentation_that_cannot_be_shown_is_a_warning(config, write_config, caplog):
    config["data_loader"]["augment"] = {"name": f"{__name__}:whole_batches"}
    _, found = gallery_of(write_config(config))
    assert found.augmented == []
    assert found.filters is not None
    assert "The report shows no augmentation: " in caplog.text


# ---- the first layer ----

FIRST_LAYERS = [
    ("config.json", "stem/kernel", "4 × 4", 8),
    ("mlp", "hidden0/kernel", "28 × 28", 128),
    ("examples/libraries/linen_cnn.json", "", "3 × 3", 16),
    ("vit", "patches/kernel", "7 × 7", 64),
    ("seeds", "stem/kernel", "4 × 4", 8),
    ("examples/gan/config.json", "discriminator/conv0/kernel", "4 × 4", 16),
    ("examples/libraries/nnx_cnn.json", "", "3 × 3", 16),
    ("examples/libraries/haiku_cnn.json", "", "3 × 3", 16),
    ("examples/libraries/equinox_cnn.json", "", "3 × 3", 16),
]


@pytest.mark.parametrize(
    ("example", "path", "size", "count"), by_set(FIRST_LAYERS[:3], FIRST_LAYERS)
)
def test_the_first_layer_is_found_in_networks_of_every_kind(
    example, path, size, count, mnist, write_config
):
    values = example_config(example if example.endswith("json") else "config.json", mnist)
    if example in ("mlp", "vit"):
        values["model"] = {"name": example}
    if example == "seeds":
        values["training"]["seeds"] = 2
    _, found = gallery_of(write_config(values))
    assert found.filters["path"].startswith(path)
    assert (found.filters["size"], found.filters["count"]) == (size, count)
    assert found.filters["shown"] == min(count, 64)
    assert (found.augmented == []) == (not values["data_loader"].get("augment"))


@pytest.mark.parametrize("example", ["tabular", "text"])
def test_the_gallery_of_data_without_images_is_empty(example, write_config):
    values = json.loads((ROOT / "examples" / example / "config.json").read_text())
    _, found = gallery_of(write_config(values))
    assert found == Gallery([], None)


def test_filters_are_drawn_from_blue_over_transparent_to_orange():
    kernel = np.zeros((2, 2, 1, 3), np.float32)
    kernel[0, 0, 0] = 1, -1, 0.5
    found = first_layer_filters(lambda p, x: convolve(x, p["k"]), {"k": kernel}, images_of(1))
    shown = tiles(pixels_of(found["image"]), 2)
    assert tuple(shown[0][0, 0]) == (*POSITIVE, 255)
    assert tuple(shown[1][0, 0]) == (*NEGATIVE, 255)
    assert tuple(shown[2][0, 0]) == (*POSITIVE, 128)
    assert all((one[..., 3].ravel()[1:] == 0).all() for one in shown)


def test_filters_of_colour_images_are_in_colour_around_grey():
    kernel = np.zeros((3, 3, 3, 1), np.float32)
    kernel[0, 0, 0], kernel[1, 1, 2], kernel[2, 2, 1] = 1, 1, -1
    found = first_layer_filters(lambda p, x: convolve(x, p["k"]), {"k": kernel}, images_of(3))
    shown = pixels_of(found["image"])
    assert found["colour"]
    for position, colour in (
        ((0, 0), (255, 128, 128)), ((1, 1), (128, 128, 255)), ((2, 2), (128, 0, 128)),
        ((0, 1), (128, 128, 128)),
    ):  # fmt: skip
        np.testing.assert_allclose(shown[position][:3], colour, atol=1)


def test_the_first_weights_are_those_the_input_is_multiplied_with_first():
    params = {"a": np.ones((5, 5)), "z": np.ones((4, 3)), "scale": np.ones(4)}

    def network(params, x):
        product = params["a"] @ params["a"]  # of parameters alone
        inner = jax.jit(lambda x, w: jax.nn.relu((x - 1) @ w))
        x = jax.lax.cond(product.sum() > 0, lambda x: inner(x * params["scale"], params["z"]),
                         lambda x: x[:, :3], x)  # fmt: skip
        return x @ product[:3]

    path, weights = first_weights(network, params, np.ones((2, 4)))
    assert path == "z"
    assert weights.shape == (4, 3)


@pytest.mark.parametrize(
    "network",
    [
        lambda params, x: x,  # no weights
        lambda params, x: x.mean((1, 2, 3))[:, None] @ params["row"],  # of no pixels
        lambda params, x: convolve(x, params["point"]),  # of one pixel
        lambda params, x: x.reshape(len(x), -1) @ params["nan"],
    ],
)
def test_first_layers_without_filters_are_left_out(network):
    params = {
        "row": np.ones((1, 5), np.float32),
        "point": np.ones((1, 1, 1, 4), np.float32),
        "nan": np.full((64, 3), np.nan, np.float32),
    }
    assert first_layer_filters(network, params, images_of(1)) is None


# ---- whole reports ----


def test_the_reports_of_a_run_and_of_test_py_have_all_sections(run, script):
    _, folder = run("training.epochs=1")
    expected = ["Curves", "Confusion matrix", "Most confident mistakes", "Calibration", "Samples"]
    expected += ["Augmentation", "First layer", "Epochs", "Config", "Environment"]
    assert sections(folder / "report.html") == expected
    (folder / "report.html").unlink()
    assert script("test.py", "-w", folder).returncode == 0
    assert sections(folder / "report.html") == expected
    for image in page(folder / "report.html").iter("img"):
        assert image.get("alt")


def test_a_report_without_augmentation_or_filters_leaves_them_out(tmp_path, digits):
    assert sections(write_report(tmp_path, predictions=digits, gallery=Gallery([], None))) == [
        "Confusion matrix", "Most confident mistakes", "Calibration", "Samples",
    ]  # fmt: skip
    without = digits._replace(images=None)
    assert "Samples" not in sections(write_report(tmp_path, predictions=without))
    assert sections(write_report(tmp_path)) == []


# ---- helpers ----


def example_config(name, mnist):
    values = json.loads((ROOT / name).read_text())
    for part in ("train", "test"):
        args = values["data_loader"][part]["args"]
        args["dataset"]["args"] = {"root": str(mnist), "split": part}
        args["batch_size"] = BATCH_SIZE
    return values


def gallery_of(path):
    """Returns (experiment, gallery) of a network whose parameters are all zero."""
    config = read_config(path)
    experiment = build(config)
    shapes = jax.eval_shape(experiment.init, next(experiment.loaders["train"].batches(1))).params
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return experiment, collect_gallery(config, experiment, params)


def images_of(channels):
    return np.zeros((2, channels, 8, 8), np.uint8)


def convolve(x, kernel):
    x = x.astype(np.float32).transpose(0, 2, 3, 1)
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def tiles(pixels, side):
    """Returns the square images of a row; the gap between two is 0.06 of their side."""
    pitch = side + max(1, round(0.06 * side))
    return [pixels[:, start : start + side] for start in range(0, pixels.shape[1], pitch)]


def test_a_summary_of_many_classes_takes_less_memory_than_its_logits():
    random = np.random.default_rng(0)
    logits = random.normal(size=(6000, 2000)).astype(np.float32)
    predictions = Predictions(logits, random.integers(0, 2000, len(logits)))
    tracemalloc.start()
    summary = summarize(predictions)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < logits.nbytes
    confidence = softmax(logits.astype(np.float64), axis=1).max(1)
    assert summary["calibration"]["confidence"] == pytest.approx(confidence.mean())
    assert summary["wrong"] == (logits.argmax(1) != predictions.targets).sum()
