"""The multi-label example, with few pages: trained, resumed, evaluated, exported, predicted."""

import json

import numpy as np
from PIL import Image

import test
import train
from examples.multi_label.digits import Pages, rare_first
from inference import convert_tflite, predict
from tests.helpers.examples import multi_label_config
from tests.helpers.project import ROOT
from tests.helpers.report_pages import sections


def test_pages_have_the_digits_of_their_labels_and_rare_ones_are_drawn_more_often():
    pages = Pages("test", 300, ROOT / "data")
    places = pages.images.reshape(300, 2, 28, 2, 28).max((2, 4)) > 0
    np.testing.assert_array_equal(places.sum((1, 2)), pages.labels.sum(1))
    drawn = pages.labels[rare_first(pages.labels, 1, 0)].sum(0)
    assert drawn[9] > 2 * pages.labels[:, 9].sum()


def test_the_example_is_trained_resumed_exported_and_predicts_every_label(
    tmp_path, write_config, monkeypatch, capsys
):
    monkeypatch.chdir(ROOT)
    path = write_config(multi_label_config(tmp_path / "saved"))
    run = train.fit(path)
    whole = (run.folder / "metrics.jsonl").read_bytes()
    train.fit(resume=run.folder / "checkpoint-epoch_1.params")
    assert (run.folder / "metrics.jsonl").read_bytes() == whole
    assert test.main(["-w", str(run.folder)]) == 0
    assert "Labels" in sections(run.folder / "report.html")
    assert convert_tflite.main(["--name", "pages", "-w", str(run.folder),
                                "--into", str(tmp_path)]) == 0  # fmt: skip
    report = json.loads((tmp_path / "pages" / "report.json").read_text())
    said = report["metadata"]["output"]
    assert (said["kind"], said["labels"]) == ("sigmoid", list(Pages.classes))
    assert all(one["same_class"] == one["decisions"] for one in report["files"])
    Image.fromarray(Pages("test", 1, ROOT / "data").images[0, 0]).save(tmp_path / "page.png")
    capsys.readouterr()
    names = ["--name", str(tmp_path / "pages"), "--threshold", "0"]
    assert predict.main([str(tmp_path / "page.png"), *names]) == 0
    words = capsys.readouterr().out.split()
    assert sorted(words[1::2]) == sorted(Pages.classes)
