"""Folders are searched by one rule for training and prediction; what is left out is reported."""

import logging
import os
import socket

import numpy as np
import pytest
from PIL import Image

from data_loader.dataloader import ImageFolder
from data_loader.image_folders import find_images
from utils import UserError, printable


def paint(*paths, kind="PNG"):
    """Writes a small picture of another shade to each path."""
    for shade, path in enumerate(paths):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            Image.new("RGB", (8, 8), (shade, 50, 0)).save(file, kind)


def logged(caplog):
    """What was logged, as one text."""
    return "\n".join(record.getMessage() for record in caplog.records)


def names(paths):
    """The sorted names of files."""
    return sorted(os.path.basename(path) for path in paths)


@pytest.fixture(autouse=True)
def propagate(monkeypatch):
    """Lets caplog see the logger, whatever a test before has configured."""
    monkeypatch.setattr(logging.getLogger("main"), "propagate", True)


def test_pictures_count_by_their_content_and_all_else_is_reported(tmp_path, caplog):
    for name in ("a", "b"):
        folder = tmp_path / name
        paint(folder / "1.png", folder / "2", folder / "deep" / "er" / "3.webp", kind="WEBP")
        (folder / "._1.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
        (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
        (folder / "labels.csv").write_text("name,label\n")
        (folder / "all.zip").write_bytes(b"PK\3\4" + bytes(30))
        (folder / "4.jpg.part").write_bytes(b"\xff\xd8\xff\xe0")
    paint(
        tmp_path / "beside.png", tmp_path / "__MACOSX" / "a" / "1.png", tmp_path / ".git" / "1.png"
    )
    data = ImageFolder(tmp_path, [8, 8], "RGB")
    assert data.classes == ["a", "b"]
    assert names(data.paths) == sorted(["1.png", "2", "3.webp"] * 2)
    counts = {reason: len(paths) for reason, paths in data.left_out.items()}
    assert counts == {
        "hidden": 3,
        "of the operating system": 3,
        "text file": 2,
        "ZIP archive": 2,
        "backup or unfinished download": 2,
        "file beside the folders of the classes": 1,
    }
    text = logged(caplog)
    assert "2 x ZIP archive" in text
    assert str(tmp_path / "a" / "labels.csv") in text
    assert len(caplog.records) == 1


def test_shares_of_a_folder_report_what_is_left_out_once(tmp_path, caplog):
    paint(*(tmp_path / "a" / f"{number}.png" for number in range(10)))
    (tmp_path / "a" / ".hidden").touch()
    parts = [ImageFolder(tmp_path, [8, 8], share=share) for share in ([0, 0.5], [0.5, 1])]
    assert [len(part) for part in parts] == [5, 5]
    assert logged(caplog).count("1 x hidden") == 1


def test_prediction_searches_as_training_does(tmp_path):
    paint(tmp_path / "a" / "1.png", tmp_path / "a" / "b" / "2.jpg", tmp_path / "a" / ".3.png")
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    predict = pytest.importorskip("inference.predict")
    data = ImageFolder(tmp_path, [8, 8])
    paths, left_out, many = predict.find_paths([str(tmp_path)])
    assert (sorted(paths), left_out, many) == (data.paths, data.left_out, True)


def test_files_that_should_be_pictures_are_refused_at_once_and_together(tmp_path):
    paint(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "2.jpg").write_text("<!DOCTYPE html><html>")
    (tmp_path / "a" / "3.PNG").touch()
    (tmp_path / "a" / "4").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    with pytest.raises(UserError) as error:
        ImageFolder(tmp_path, [8, 8])
    for words in ("2.jpg: HTML page", "3.PNG: empty file", "4: HEIC image", "Replace or delete"):
        assert words in str(error.value)


def test_a_damaged_picture_is_named_with_how_to_find_all_of_them(tmp_path):
    paint(tmp_path / "a" / "1.png")
    whole = (tmp_path / "a" / "1.png").read_bytes()
    (tmp_path / "a" / "1.png").write_bytes(whole[:-30])
    with pytest.raises(
        UserError, match=r"1\.png: .*cut off .*data_loader\.inspect -c config\.json"
    ):
        ImageFolder(tmp_path, [8, 8])[0]


def test_links_are_followed_once_and_never_upwards(tmp_path):
    paint(tmp_path / "root" / "a" / "1.png", tmp_path / "root" / "b" / "2.png")
    paint(tmp_path / "elsewhere" / "3.png")
    a = tmp_path / "root" / "a"
    for name, to in {"x": "elsewhere", "y": "elsewhere", "up": "root", "self": "root/a"}.items():
        (a / name).symlink_to(tmp_path / to)
    (tmp_path / "elsewhere" / "back").symlink_to(a)
    (a / "4.png").symlink_to(tmp_path / "elsewhere" / "3.png")
    (a / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (a / "loop").symlink_to(a / "loop")
    data = ImageFolder(tmp_path / "root", [8, 8])
    found = [path for path, label in zip(data.paths, data.labels, strict=True) if label == 0]
    assert names(found) == ["1.png", "3.png", "4.png"]
    assert names(data.left_out["broken link"]) == ["gone.png", "loop"]
    assert names(data.left_out["link to a folder that is searched anyway"]) == [
        "back", "self", "up", "y",
    ]  # fmt: skip


def test_what_is_no_file_is_never_opened(tmp_path, monkeypatch):
    paint(tmp_path / "a" / "1.png")
    os.mkfifo(tmp_path / "a" / "2.png")
    (tmp_path / "a" / "3.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path / "a")
        server.bind("4.png")  # the name of a socket is at most 107 bytes long
        found = find_images(tmp_path / "a")
    assert names(found.images) == ["1.png"]
    assert found.left_out.keys() == {"FIFO", "device", "socket"}


def test_a_folder_of_splits_is_not_taken_for_classes(tmp_path):
    paint(tmp_path / "train" / "cat" / "1.png", tmp_path / "Test" / "cat" / "1.png")
    with pytest.raises(UserError, match=r"\['Test', 'train'\] are splits, not classes"):
        ImageFolder(tmp_path, [8, 8])
    assert len(ImageFolder(tmp_path, [8, 8], classes=["Test", "train"])) == 2


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_class_of_few_pictures_is_in_both_shares(tmp_path, count, caplog):
    for name, number in {"a": 20, "b": count, "c": 1}.items():
        paint(*(tmp_path / name / f"{one}.png" for one in range(number)))
    train, test = (ImageFolder(tmp_path, [8, 8], share=share) for share in ([0, 0.9], [0.9, 1]))
    assert sorted(train.paths + test.paths) == ImageFolder(tmp_path, [8, 8]).paths
    assert np.bincount(test.labels, minlength=3).tolist() == [2, 1, 0]
    assert "share [0.9, 1] has no picture of some classes" in logged(caplog)
    assert logged(caplog).endswith(": c")


ODD = [
    b"\xff\xfe", b"=cmd", b"new\nline", b"\x1b[31mred", b"%s {0}", b"-x", b"a,b\"c", b"' ",
    "שלום".encode(), "🐝".encode(), "e\u0301".encode(), "é".encode(), "\u202egnp".encode(),
]  # fmt: skip


def test_any_name_is_read_and_shown(tmp_path, caplog):
    root = os.fsencode(tmp_path) + b"/\xfe"
    for name in ODD:
        paint(*(os.path.join(root, name, b"%d\n\xff" % number + name) for number in range(4)))
        os.makedirs(os.path.join(root, name, b"\xff.txt"))
        with open(os.path.join(root, name, b"\xff.txt", b"\xff.txt"), "w") as file:
            file.write("text")
    data = ImageFolder(os.fsdecode(root), [8, 8], "RGB", share=[0, 0.5])
    assert len(data.classes) == len(set(data.classes)) == len(ODD)
    assert len(data) == 2 * len(ODD)
    for index in range(len(data)):
        data[index]
    assert len(data.checksum()) == 8
    for text in (*data.classes, logged(caplog)):
        assert text.encode().decode() == text
        assert not set("\n\x1b\u202e") & set(text)
    assert "\\xff" in logged(caplog)
    again = ImageFolder(os.fsdecode(root), [8, 8], "RGB", classes=data.classes)
    assert again.classes == data.classes


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a b.é🐝", "a b.é🐝"), ("\udcff\n\x1b\u202e\u2028", "\\xff\\n\\x1b\\u202e\\u2028")],
)
def test_a_name_is_shown_without_what_a_terminal_would_obey(name, shown):
    assert printable(name) == shown


@pytest.mark.parametrize("value_range", [5, [1], [3, 3], ["0", "1"], [0, 1, 2]])
def test_a_range_is_black_and_white(tmp_path, value_range):
    with pytest.raises(UserError, match=r"value_range is .*; expected \[black, white\]"):
        ImageFolder(tmp_path, [8, 8], value_range=value_range)


def test_a_range_is_used_and_kept(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((8, 8), 1600, np.uint16)).save(tmp_path / "a" / "1.png")
    data = ImageFolder(tmp_path, [8, 8], value_range=[0, 4095])
    assert (data.value_range, data[0][0].max()) == ((0, 4095), 100)
