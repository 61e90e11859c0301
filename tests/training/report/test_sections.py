"""The report's pages of labels, masks and values, and sections that a user's functions make."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

import test
import train
from tests.helpers import labelled
from tests.helpers.project import ROOT
from tests.helpers.report_pages import HOSTILE, page, pixels_of, sections, text, texts
from training.report import pages
from training.report.page import write_report
from training.report.sections import Section, blocks_of


@pytest.fixture
def train_points(tmp_path, monkeypatch):
    """`train_points(kind, loss, **training)` trains on 48 points; returns the run."""
    monkeypatch.chdir(ROOT)

    def train_points(kind, loss, output=None, **training):
        config = labelled.small_config(tmp_path, kind=kind)
        config["training"] |= {"loss": loss, "metrics": [], "epochs": 1} | training
        return train.fit(config | {"output": output})

    return train_points


def rows_of(tree, heading):
    """The cells of the rows of a section's table."""
    section = next(one for one in tree.iter("section") if text(one.find("h2")) == heading)
    return [texts(row, "td") for row in section.findall(".//tbody/tr")]


def summary(inputs, outputs, targets):
    """How many. There are more lines."""
    return {"examples": len(inputs), "sum": float(np.sum(outputs)), "said": HOSTILE}


def breaks(inputs, outputs, targets):
    raise KeyError("no such column")


def greys(inputs, outputs, targets):
    return [np.linspace(0, 1, 12).reshape(3, 4), np.zeros((2, 3, 3), np.uint8)]


def wrong(inputs, outputs, targets):
    return np.zeros((2, 3, 4, 5))


def lines(inputs, outputs, targets):
    return ["first\nsecond", "third"]


def test_functions_of_the_config_are_sections_and_those_that_fail_are_named(train_points, capsys):
    names = ["summary", "breaks", "greys", "wrong", "lines"]
    run = train_points("labels", "cross_entropy", report=[f"{__name__}:{one}" for one in names])
    report = run.folder / "report.html"
    assert [one for one in sections(report) if one in names] == names
    tree = page(report)
    assert rows_of(tree, "summary")[0] == ["examples", "48"]
    # softmax: the probabilities of 48 examples
    assert float(rows_of(tree, "summary")[1][1]) == pytest.approx(48, abs=0.01)
    words = texts(tree, ".//section/p")
    assert any(one.startswith("How many") and "48 of 48 test examples" in one for one in words)
    assert any("KeyError: 'no such column'" in one and "test_sections.py:" in one for one in words)
    assert any("(2, 3, 4, 5)" in one and "expected pictures" in one for one in words)
    images = [one.get("src") for one in tree.iter("img") if "picture" in one.get("alt")]
    assert [pixels_of(one).shape[:2] for one in images] == [(3, 4), (2, 3)]
    assert pixels_of(images[0])[2, 3].max() == 255
    assert texts(tree, ".//pre") == ["first second", "third"]
    assert "The report lacks breaks" in capsys.readouterr().out


def test_a_function_that_is_not_there_is_refused_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert train.main(["training.epochs=1", f"training.save_dir={tmp_path}",
                       "training.report=[\"model.model:nothing\"]"]) == 1  # fmt: skip
    assert "training.report.0" in capsys.readouterr().err
    assert train.main(['training.report=["label"]']) == 1
    assert "did you mean 'labels'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "found", [np.zeros(3), [], {"a": np.zeros(2)}, [{"a": object()}], object(), np.zeros((2, 2, 4)),
              np.array(["a"]), [np.zeros((2, 2)), "text"], np.zeros((0, 3)), {"a": 1j}],
)  # fmt: skip
def test_anything_else_than_pictures_tables_numbers_and_texts_is_refused_in_words(found):
    with pytest.raises(ValueError, match="expected pictures"):
        blocks_of(found)


@pytest.mark.parametrize("found", [1, 2.5, np.float32(1), jnp.ones(()), True, np.float64("nan")])
def test_a_number_of_any_type_is_shown(tmp_path, found):
    write_report(tmp_path, sections=[Section("It", blocks=blocks_of(found))])
    assert sections(tmp_path / "report.html") == ["It"]


def test_labels_are_judged_as_scikit_learn_does():
    random = np.random.default_rng(0)
    true = (random.random((200, 3)) < (0.5, 0.1, 0.02)).astype(np.int32)
    scores = np.round(np.clip(0.3 * true + random.random((200, 3)), 0, 1), 1)  # with ties
    block = pages.labels(None, scores, true)[1]
    for index, row in enumerate(block.value["rows"]):
        cells = dict(zip(block.value["columns"], row, strict=True))
        auroc = roc_auc_score(true[:, index], scores[:, index])
        precision = average_precision_score(true[:, index], scores[:, index])
        assert cells["AUROC"] == pytest.approx(auroc)
        assert cells["average precision"] == pytest.approx(precision)


def test_a_label_that_never_occurs_has_no_numbers():
    block = pages.labels(None, np.full((4, 1), 0.2), np.zeros((4, 1), int), names=["rare"])[1]
    assert block.value["rows"] == [["rare", 0, 0, 0, "–", "–", "–", "–"]]


def test_masks_overlap_as_counted_by_hand_and_what_is_ignored_counts_nowhere():
    right = np.array([[[0, 1], [1, -100]]])
    made = np.array([[[0, 1], [0, 1]]])
    table = pages.masks(np.zeros((1, 1, 2, 2), np.uint8), np.eye(2)[made], right)[0]
    assert [row[1:] for row in table.value["rows"]] == [[1, 0.5], [2, 0.5]]


def test_values_are_compared_with_their_targets():
    values, targets = np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0])
    charts, table = pages.regression(None, values, targets, names=["price"])
    assert [one["name"] for one in charts.value] == [
        "price: predicted", "price: predicted - target"
    ]  # fmt: skip
    assert table.value["rows"] == [
        ["price", pytest.approx(1 / 3), pytest.approx(3**-0.5), pytest.approx(0.5)]
    ]


@pytest.mark.parametrize(
    ("kind", "loss", "output", "expected"),
    [("many", "binary_cross_entropy", None, "Labels"), ("labels", "cross_entropy", "none", None),
     ("one-hot", "mean_squared_error", None, "Regression")],
)  # fmt: skip
def test_the_page_follows_the_output(train_points, kind, loss, output, expected):
    run = train_points(kind, loss, output)
    found = sections(run.folder / "report.html")
    assert "Confusion matrix" not in found
    assert [one for one in found if one in ("Labels", "Regression", "Masks")] == [expected] * bool(
        expected
    )
    assert test.main(["-w", str(run.folder), "output=none", "--trust"]) == 0
