"""Metrics over the epoch, and the outputs that are kept for them."""

import numpy as np
import pytest

import test as test_script
import train
from tests.helpers import epoch_metrics, labelled


def metrics(*names):
    named = [f'"tests.helpers.epoch_metrics:{name}"' for name in names]
    return f"training.metrics=[{', '.join(named)}]"


@pytest.mark.parametrize("setting", ["training.seeds=2", "devices.count=1"])
def test_several_seeds_have_their_mean(fit_labelled, setting):
    run = fit_labelled(overrides=[metrics("spread"), setting])
    seeds = 2 if "seeds" in setting else 1
    spreads = [np.ptp(outputs) for outputs, _ in epoch_metrics.SEEN[-seeds:]]
    assert run.metrics["test_margin"] == pytest.approx(np.mean(spreads), rel=1e-5)
    assert ("test_margin_std" in run.metrics) == (seeds == 2)


def test_positions_of_sequences_take_the_place_of_examples(fit_labelled):
    run = fit_labelled(
        "Sequences", "padded",
        ['model={"name": "tests.helpers.labelled:of_positions"}', metrics("examples")],
    )  # fmt: skip
    assert run.metrics["test_examples"] == sum(3 + index * 7 % 20 for index in range(48))


@pytest.mark.parametrize(("name", "classes"), [("p.csv", 3), ("p.parquet", 30), ("p.npz", 30)])
def test_predictions_of_few_and_of_many_classes(fit_labelled, name, classes):
    pandas = pytest.importorskip("pandas")
    run = fit_labelled(
        classes=classes, overrides=[f"model.args.classes={classes}", "training.epochs=1"]
    )
    options = ["-w", str(run.folder), "--predictions", name]
    assert test_script.main(options if classes < 20 else [*options, "--top-k", "4"]) == 0
    x, y = labelled.Points(classes=classes).x, labelled.Points(classes=classes).y
    chances = np.exp(np.asarray(run.predict(x), np.float64))
    chances /= chances.sum(1, keepdims=True)
    if name.endswith("npz"):
        found = np.load(run.folder / name)
        np.testing.assert_array_equal(found["top"], np.argsort(-chances, 1, kind="stable")[:, :4])
        return
    read = pandas.read_csv if name.endswith("csv") else pandas.read_parquet
    table = read(run.folder / name)
    np.testing.assert_array_equal(table["target"].astype(int), y)
    np.testing.assert_array_equal(table["prediction"].astype(int), chances.argmax(1))
    np.testing.assert_allclose(table["probability"], chances.max(1), rtol=1e-4)
    if classes == 30:
        order = np.argsort(-chances, 1, kind="stable")
        np.testing.assert_array_equal(table["top_4"].astype(int), order[:, 3])
        np.testing.assert_allclose(table["p_4"], -np.sort(-chances, 1)[:, 3], rtol=1e-4)
        assert list(table.columns)[4:6] == ["top_1", "p_1"]


def test_check_tries_the_metrics_and_the_name_that_is_monitored(
    tmp_path, write_config, monkeypatch, capsys
):
    config = write_config(labelled.small_config(tmp_path))
    good = ["-c", str(config), "--check", metrics("spread", "per_class")]
    assert train.main([*good, "training.monitor=min test_margin_of_0"]) == 0
    assert "margin_of_0 " in capsys.readouterr().out
    assert train.main([*good, "training.monitor=min test_margin_of_1"]) == 1
    assert "no 'test_margin_of_1' is measured; did you mean" in capsys.readouterr().err
    assert train.main(["-c", str(config), "--check", metrics("failing")]) == 1
    assert "epoch_metrics.py:" in capsys.readouterr().err
