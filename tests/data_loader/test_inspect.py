"""`python -m data_loader.inspect` finds in the data what was put there, and says nothing else."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from data_loader.dataloader import DataLoader
from data_loader.inspect.__main__ import main
from data_loader.inspect.duplicates import equal_inputs, lookalikes
from data_loader.inspect.findings import WRONG, judge, suggested_normalize
from data_loader.inspect.reading import read_split
from tests.helpers.project import ROOT


class Rows:
    """A data set in memory, read one by one."""

    def __init__(self, inputs, targets, classes=None):
        self.inputs, self.targets = inputs, targets
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], self.targets[index]


def rows(count, seed, **changes):
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(count, 4)).astype(np.float32)
    targets = np.arange(count, dtype=np.int32) % 3
    return Rows(changes.get("inputs", inputs), changes.get("targets", targets), list("abc"))


def read(**data_sets):
    """Reads the data sets as splits."""
    loaders = {name: DataLoader(one, batch_size=1) for name, one in data_sets.items()}
    return [read_split(name, loader, lambda count: None) for name, loader in loaders.items()]


def wrong(splits):
    return [one.text for one in judge(splits) if one.level == WRONG]


def test_good_data_are_all_read_and_nothing_is_wrong():
    splits = read(train=rows(70, 0), test=rows(31, 1))
    assert [one.examples for one in splits] == [70, 31]
    assert sorted(splits[0].labels) == list(range(70))
    assert wrong(splits) == []


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named_with_split_field_and_example(split, value):
    data = {"train": rows(70, 0), "test": rows(40, 1)}
    data[split].inputs[33, 2] = value
    (text,) = wrong(read(**data))
    assert text.startswith(f"{split}: inputs of 1 example")
    assert "example 33" in text


@pytest.mark.parametrize("label", [-1, 3, 255, -100])
def test_a_label_that_is_no_class_is_named(label):
    targets = (np.arange(40) % 3).astype(np.int16)
    targets[17] = label
    texts = wrong(read(train=rows(40, 0), test=rows(40, 1, targets=targets)))
    assert any(f"{label} (example 17)" in text and "0 to 2" in text for text in texts)


def test_an_example_that_raises_an_error_is_named_and_the_others_are_read():
    class Broken(Rows):
        def __getitem__(self, index):
            if index == 12:
                raise ValueError("a torn page")
            return super().__getitem__(index)

    good = rows(50, 0)
    split, _ = splits = read(train=Broken(good.inputs, good.targets), test=rows(9, 1))
    assert list(split.unreadable) == [12]
    assert len(split.rows) == 49
    assert "a torn page" in wrong(splits)[0]


def test_classes_in_another_order_types_shapes_and_scales_that_differ_are_wrong():
    train, test = rows(30, 0), rows(30, 1)
    test.classes = list("acb")
    assert "means another class" in wrong(read(train=train, test=test))[0]
    double = rows(30, 1).inputs.astype(np.float64)
    assert "the types differ" in wrong(read(train=train, test=rows(30, 1, inputs=double)))[0]
    wide = np.random.default_rng(1).normal(size=(30, 5)).astype(np.float32)
    assert "the shapes differ" in wrong(read(train=train, test=rows(30, 1, inputs=wide)))[0]
    assert "scaled alike" in wrong(read(train=train, test=rows(30, 1, inputs=wide[:, :4] * 255)))[0]


def test_a_class_without_an_example_is_wrong_in_training_and_a_note_elsewhere():
    two = np.arange(30, dtype=np.int32) % 2
    (text,) = wrong(read(train=rows(30, 0, targets=two), test=rows(30, 1)))
    assert text == "train: no example of 1 class: c"
    splits = read(train=rows(30, 0), test=rows(30, 1, targets=two))
    assert wrong(splits) == []
    assert "test: no example of 1 class: c" in [one.text for one in judge(splits)]


def images(count, seed):
    """Images with some structure, uint8 (count, 3, 48, 48)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), np.uint8)
    big = [Image.fromarray(one).resize((48, 48), Image.Resampling.BICUBIC) for one in coarse]
    return np.stack([np.moveaxis(np.asarray(one), -1, 0) for one in big])


def test_mean_and_std_are_those_of_numpy():
    pixels = images(40, 0)
    (split,) = read(train=Rows(pixels, np.zeros(40, int)))
    suggested = suggested_normalize(split)
    channels = np.moveaxis(pixels, 1, 0).reshape(3, -1) / 255.0
    np.testing.assert_allclose(suggested["mean"], channels.mean(1), atol=6e-5)
    np.testing.assert_allclose(suggested["std"], channels.std(1), atol=6e-5)


def test_equal_images_in_two_splits_and_with_two_labels_are_found_and_no_others():
    train, test = images(40, 0), images(20, 1)
    test[7] = train[3]
    train[30] = train[4]
    targets = np.arange(40) % 2
    targets[30] = 1 - targets[4]
    splits = read(train=Rows(train, targets), test=Rows(test, np.arange(20) % 2))
    groups = sorted(sorted(one.members) for one in equal_inputs(splits))
    assert groups == [[("test", 7), ("train", 3)], [("train", 4), ("train", 30)]]
    across, torn = wrong(splits)
    assert "train example 3 = test example 7" in across
    assert "train example 4 = train example 30 (0 and 1)" in torn


@pytest.fixture
def folder(tmp_path):
    """A folder of JPEG files per split and class, with one compressed again in the other split."""
    for split, seed in (("train", 0), ("test", 1)):
        for index, pixels in enumerate(images(16, seed)):
            path = tmp_path / split / "ab"[index % 2] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            large = Image.fromarray(np.moveaxis(pixels, 0, -1)).resize((200, 150))
            large.save(path, quality=92)
    again = Image.open(tmp_path / "train/a/4.jpg")
    again.resize((160, 120)).save(tmp_path / "test/a/again.jpg", quality=50)
    return tmp_path


def write_config(folder):
    def loader(split):
        args = {"root": str(folder / split), "size": [64, 64], "mode": "RGB"}
        data_set = {"name": "ImageFolder", "args": args}
        return {"name": "DataLoader", "args": {"dataset": data_set, "batch_size": 4}}

    config = json.loads((ROOT / "config.json").read_text())
    config["data_loader"] = {split: loader(split) for split in ("train", "test")}
    config["training"]["monitor"] = "min test_loss"
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return str(path)


def test_an_image_compressed_again_in_another_split_looks_the_same(folder, capsys):
    assert main(["-c", write_config(folder)]) == 0
    out = capsys.readouterr().out
    assert "1 pair of images" in out
    assert "train a/4.jpg and test a/again.jpg" in out


def test_the_command_fails_where_a_file_is_cut_and_the_page_says_so(folder, capsys):
    path = folder / "test/b/3.jpg"
    path.write_bytes(path.read_bytes()[:3000])
    page = folder / "data.html"
    assert main(["-c", write_config(folder), "--html", str(page)]) == 1
    out = capsys.readouterr().out
    assert "test: 1 example cannot be read: b/3.jpg: cannot be read as a picture" in out
    html = page.read_text()
    assert "b/3.jpg" in html
    assert "samples of a" in html
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", html)


def test_the_counts_of_the_console_are_those_of_the_folders(folder, capsys):
    main(["-c", write_config(folder)])
    out = capsys.readouterr().out
    for split in ("train", "test"):
        count = len(list((folder / split).rglob("*.jpg")))
        assert f"{split}: {count} examples" in out
    counts = [len(list((folder / split / "a").iterdir())) for split in ("train", "test")]
    assert re.search(rf"^a +{counts[0]} +{counts[1]}$", out, re.M)
    assert "formats: JPEG 16" in out
    assert "sizes: 150 x 200" in out


def test_sequences_of_several_lengths_are_measured():
    class Sequences:
        def __len__(self):
            return 20

        def __getitem__(self, index):
            return np.ones((3 + index, 2), np.float32), np.int32(index % 2)

    (split,) = read(train=Sequences())
    assert split.examples == 20
    assert sorted(split.fields["inputs"].lengths) == list(range(3, 23))


def test_a_stream_is_read_to_its_end():
    class Numbers:
        def __iter__(self):
            return iter((np.float32([number]), np.int32(number % 3)) for number in range(37))

        def __len__(self):
            return 37

    (split,) = read(train=Numbers())
    assert split.examples == 37
    assert split.fields["inputs"].high == 36


def test_lookalikes_are_not_sought_among_small_images_without_files():
    splits = read(train=Rows(images(9, 0), np.zeros(9)), test=Rows(images(9, 0), np.zeros(9)))
    assert lookalikes(splits) == []
