"""Data sets of Hugging Face's `datasets`, from the disk and as streams."""

import io
import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # the tests use no network

import datasets
import numpy as np
import pytest
from PIL import Image

from data_loader.dataloader import DataLoader
from data_loader.images import read_image
from data_loader.sources.hugging_face import HuggingFace, HuggingFaceStream
from utils import UserError

datasets.disable_progress_bars()
COUNT = 30


def png(value):
    file = io.BytesIO()
    Image.new("RGB", (5, 4), (value, 0, 0)).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of train and test: numbers, images, texts; labels as classes and as texts."""
    folder = tmp_path_factory.mktemp("datasets") / "all"

    def part(start, count):
        rows = range(start, start + count)
        table = {
            "number": [float(index) for index in rows],
            "vector": [[index, 1.5] for index in rows],
            "image": [{"bytes": png(index), "path": None} for index in rows],
            "text": [f"row {index}" for index in rows],
            "label": [index % 2 for index in rows],
            "word": [["yes", "no", "maybe"][index % 3] for index in rows],
            "big": [2**40 for _ in rows],
            "ragged": [[1.0] * (1 + index % 2) for index in rows],
            "hole": [None if index == 3 else index for index in rows],
        }
        label = datasets.ClassLabel(names=["even", "odd"])
        made = datasets.Dataset.from_dict(table).cast_column("label", label)
        return made.cast_column("image", datasets.Image())

    datasets.DatasetDict({"train": part(0, COUNT), "test": part(100, 8)}).save_to_disk(str(folder))
    return str(folder)


def test_columns_of_numbers_are_read_a_batch_at_a_time(saved):
    data = HuggingFace(saved, "vector", "label", "train")
    assert len(data) == COUNT
    assert data.classes == ["even", "odd"]
    inputs, targets = data.__getitems__(np.array([7, 2]))
    assert inputs.tolist() == [[7, 1.5], [2, 1.5]]
    assert (inputs.dtype, targets.dtype) == (np.float32, np.int32)
    assert targets.tolist() == [1, 0]
    one, target = data[7]
    assert one.tolist() == inputs[0].tolist()
    assert target == 1
    loader = DataLoader(data, 8, shuffle=True)
    assert loader.whole_batches
    assert sorted(x for b in loader.batches(1) for x in b["inputs"][b["weight"] > 0, 0]) == [
        *range(COUNT)
    ]


def test_images_are_read_as_in_a_folder_by_workers(saved):
    data = HuggingFace(saved, {"left": "image", "n": "number"}, "label", "test", size=[4, 5])
    batch = next(DataLoader(data, 8, workers=2).batches(1))
    expected = [read_image(io.BytesIO(png(index)), (4, 5), "RGB") for index in range(100, 108)]
    np.testing.assert_array_equal(batch["inputs"]["left"], expected)
    assert batch["inputs"]["n"].tolist() == list(range(100, 108))


def test_a_target_of_text_is_a_class_of_the_training_data(saved):
    train = HuggingFace(saved, "number", "word", "train")
    assert train.classes == ["maybe", "no", "yes"]
    assert [int(train[index][1]) for index in range(3)] == [2, 1, 0]
    assert json.loads(json.dumps(train.fitted)) == {"classes": train.classes}
    test = HuggingFace(saved, "number", "word", "test", fitted={"classes": ["no", "yes"]})
    with pytest.raises(UserError, match="row 1, column 'word': 'maybe'; expected one of the cl"):
        [test[index] for index in range(8)]


def test_a_stream_has_the_same_rows_and_resumes(saved):
    def loader():
        data = HuggingFaceStream(saved, "vector", "word", "train", classes=["yes", "no", "maybe"])
        return DataLoader(data, 4, True, examples_per_epoch=25, shuffle_window=6)

    def rows(batches):
        return [float(x) for b in batches for x in b["inputs"][b["weight"] > 0, 0]]

    trained = loader()
    whole = {epoch: rows(trained.batches(epoch)) for epoch in (1, 2)}
    assert sorted((whole[1] + whole[2])[:COUNT]) == list(range(COUNT))
    for start in range(8):
        resumed = loader()
        position = json.loads(json.dumps(trained.position(2, start)))
        assert position[3] is not None
        resumed.restore(position)
        assert rows(resumed.batches(2, start)) == whole[2][4 * start :]
    evaluated = DataLoader(HuggingFaceStream(saved, "vector", "label", "test"), 4)
    assert rows(evaluated.batches(1)) == rows(evaluated.batches(1)) == list(range(100, 108))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": "vectr"}, "no column 'vectr'; did you mean 'vector'"),
        ({"split": "dev"}, "no split 'dev'; there are train, test"),
        ({"split": None}, "no split None; there are train, test"),
        ({"inputs": "image"}, "column 'image' are images; give their `size`"),
        ({"inputs": "text"}, "column 'text': .*; expected numbers"),
        ({"inputs": "big"}, "column 'big'.*: a whole number that int32 does not hold"),
        (
            {"inputs": "ragged"},
            r"lists of numbers of one length|shapes \(1,\) and \(2,\)",
        ),
        ({"name": "/nowhere/at/all"}, "/nowhere/at/all: `datasets` cannot load it"),
        ({"name": "mnist"}, "mnist: `datasets` cannot load it: .*save_to_disk"),
    ],
)
@pytest.mark.parametrize("kind", [HuggingFace, HuggingFaceStream])
def test_what_is_no_column_of_numbers_or_images_is_refused(kind, arguments, message, saved):
    given = {"name": saved, "inputs": "vector", "targets": "label", "split": "train"} | arguments
    with pytest.raises(UserError, match=message):
        list(DataLoader(kind(**given), 4).batches(1))


@pytest.mark.parametrize("kind", [HuggingFace, HuggingFaceStream])
def test_a_missing_value_is_refused(kind, saved):
    with pytest.raises(UserError, match=r"column 'hole': missing; expected a value"):
        list(DataLoader(kind(saved, "hole", "label", "train"), 4).batches(1))
