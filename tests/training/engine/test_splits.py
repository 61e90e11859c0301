"""The splits of the data: each is tried, and they are compared, before anything is trained."""

import pytest
from PIL import Image

from tests.helpers.project import by_set
from training.checkpoint.naming import find
from training.config import read_config
from training.engine.splits import leakage

REFUSED = [
    ({"rank": 2}, "the test split: the inputs of an example have the shape (1, 4), those of the "
     "training split (4,); expected as many axes"),
    ({"dtype": "int32"},
     "the test split: the inputs are int32, those of the training split float32"),
    ({"classes": ["b", "a", "c"]}, "the test split: its classes are b, a, c, those of the training "
     "split a, b, c: label 0 is 'b' in one and 'a' in the other"),
    ({"kind": "values"}, "the test split: example 0, position 0 has the label 0.0 (float32), "
     "expected a whole number from 0 to 2"),
    ({"faults": [["targets", 3, "text"]]}, "the test split: targets of a batch are <U11; expected "
     "numbers. Example 3 has 'n/a'"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "expected"), by_set(REFUSED[:3], REFUSED))
@pytest.mark.parametrize("check", by_set([False], [True, False]))
def test_a_test_split_that_does_not_fit_is_refused_before_training(
    run, points, capsys, args, expected, check
):
    for split in ("train", "test"):
        points["data_loader"][split]["args"]["dataset"]["args"]["classes"] = ["a", "b", "c"]
    points["data_loader"]["test"]["args"]["dataset"]["args"] |= args
    code, folder = run(*["--check"] * check)
    assert (code, folder) == (1, None)
    assert expected in capsys.readouterr().err


def test_check_tries_a_batch_of_every_split(run, points, capsys):
    points["data_loader"]["test"]["args"]["dataset"]["args"]["faults"] = [["inputs", 3, "nan"]]
    assert run("--check")[0] == 1
    error = capsys.readouterr().err
    assert "the test split: the inputs of example 3 are not finite (nan at [3])" in error
    points["data_loader"]["test"]["args"]["dataset"]["args"]["faults"] = []
    assert run("--check")[0] == 0
    out = capsys.readouterr().out
    for split in ("update", "validation", "test"):
        assert f"\n{split:<12} loss " in out
    assert "All is well." in out


def test_another_scale_and_missing_classes_are_warned_of(run, points, capsys):
    train, test = (points["data_loader"][split]["args"]["dataset"]["args"]
                   for split in ("train", "test"))  # fmt: skip
    train["classes"], test["classes"], test["scale"] = ["a", "b", "c"], ["a", "b", "c", "d"], 0.01
    assert run("training.epochs=1")[0] == 0
    out = capsys.readouterr().out
    assert "The inputs of a batch of the training split go from " in out
    assert "those of the test split from " in out
    assert "The test split has no example of 1 of the classes (d): its results say" in out


def test_a_loader_that_is_too_small_is_named_with_its_split_and_share(
    run, config, tmp_path, capsys
):
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(10):
            Image.new("L", (8, 8), index).save(tmp_path / f"pictures/{name}/{index}.png")

    def loader(share):
        args = {"root": str(tmp_path / "pictures"), "size": [8, 8], "share": share}
        return {"name": "DataLoader", "args": {
            "dataset": {"name": "ImageFolder", "args": args}, "batch_size": 8}}  # fmt: skip

    config["data_loader"] |= {"train": loader([0, 0.8]), "test": loader([0.8, 1])}
    assert run("--check")[0] == 1
    error = capsys.readouterr().err
    assert "data_loader.test, share [0.8, 1]: DataLoader(ImageFolder): batch_size is 8" in error
    assert run("--check", "data_loader.train.args.validation_split=12")[0] == 1
    error = capsys.readouterr().err
    assert "data_loader.train, share [0, 0.8]: " in error
    assert "only 4 examples to read, 12 being held out for validation" in error


@pytest.mark.parametrize(
    ("monitor", "words"),
    [
        ("max test_accuracy", "training.monitor='max validation_accuracy'"),
        ("min test_loss", "training.monitor='min validation_loss'"),
        ("min validation_loss", ""), ("max epoch_train_accuracy", ""), (None, ""),
    ],
)  # fmt: skip
def test_choosing_the_best_epoch_by_the_test_set_is_named_as_what_it_is(monitor, words):
    assert words in leakage(monitor)
    assert bool(leakage(monitor)) == bool(words)


@pytest.mark.parametrize("by_test", by_set([True], [True, False]))
def test_the_log_and_the_report_say_once_that_the_test_set_chooses(run, points, capsys, by_test):
    points["training"]["monitor"] = "min test_loss" if by_test else "min validation_loss"
    code, folder = run("training.epochs=1")
    assert code == 0
    words = "the best epoch is chosen by the test set"
    assert capsys.readouterr().out.count(words) == by_test
    assert (folder / "report.html").read_text().count(words) == by_test


def test_without_a_monitor_the_last_epoch_counts(run, points, capsys):
    points["training"]["monitor"] = None
    code, folder = run()
    assert code == 0
    assert not (folder / "checkpoint-best.params").exists()
    assert find(folder, prefer_best=True).name == "checkpoint-epoch_3.params"
    assert run("--check", "training.early_stop=2")[0] == 1
    assert "training.early_stop needs training.monitor" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "monitor"),
    [
        ([], "min validation_loss"),
        (["data_loader.train.args.validation_split=0"], None),
        (["data_loader.train.args.validation_split=0", "training.early_stop=2"], "min test_loss"),
        (["training.monitor=null"], None),
        (["training.monitor=max test_accuracy"], "max test_accuracy"),
    ],
)
def test_the_default_monitor_depends_on_what_is_held_out(points, write_config, overrides, monitor):
    del points["training"]["monitor"]
    assert read_config(write_config(points), overrides).training.monitor == monitor
