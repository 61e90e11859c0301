"""Folders with anything in them: every file is used, reported or refused in words."""

import os
import random
import shutil

import pytest

from data_loader.dataloader import ImageFolder
from data_loader.image_folders import find_classes, find_images
from tests.helpers.odd_images import in_mode, written
from utils import UserError

FOLDERS = 700
PIECES = [
    b"a",
    b"\xff",
    b"\n",
    b"\x1b[2J",
    b" ",
    b".",
    b"~",
    b"=1",
    b"%s",
    "é".encode(),
    "🐝".encode(),
]
ENDINGS = [b"", b".jpg", b".PNG", b".txt", b".webp", b".tga", b".db", b".part"]
WHOLE = [written(in_mode("RGB"), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")]
OTHER = [
    b"",
    b"text",
    b"<html>",
    b"PK\3\4....",
    bytes(50),
    b"\0\5\26\7\0\2\0\0Mac OS X",
    b"BM",
    b"P5 ",
]


def content(chance):
    """A picture, a damaged one or something else."""
    whole = chance.choice(WHOLE)
    kind = chance.random()
    if kind < 0.5:
        return whole
    if kind < 0.7:
        return whole[: chance.randrange(len(whole))]
    return chance.choice(OTHER) if kind < 0.9 else chance.randbytes(chance.randrange(60))


def make(chance, folder, depth=0):
    """Fills a folder with files, folders, links and pipes of any name."""
    os.makedirs(folder, exist_ok=True)
    for _ in range(chance.randint(0, 5)):
        name = b"".join(chance.choices(PIECES, k=chance.randint(1, 3))) + chance.choice(ENDINGS)
        path = os.path.join(folder, chance.choice([name, name, b"." + name, b"Thumbs.db"]))
        if os.path.lexists(path) or name.strip(b".") == b"":
            continue
        kind = chance.random()
        if kind < 0.2 and depth < 3:
            make(chance, path, depth + 1)
        elif kind < 0.3:
            to = chance.choice([b".", b"..", b"../..", b"/dev/zero", path, b"nowhere", b"../b"])
            os.symlink(to, path)
        elif kind < 0.35:
            os.mkfifo(path)
        else:
            with open(path, "wb") as file:
                file.write(content(chance))


def unaccounted(folder, found):
    """The files below a folder of which `found` says nothing; not those behind links."""
    out = {path for paths in found.left_out.values() for path in paths}
    said = out | set(found.images) | found.refused.keys()
    missing = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if os.path.join(parent, name) not in out]
        missing += [one for name in files if (one := os.path.join(parent, name)) not in said]
    return missing


def outcome(function, *arguments, **named):
    """What a function returns, or None where it refuses in one line that any terminal can show."""
    try:
        return function(*arguments, **named)
    except UserError as error:
        message = str(error)
    assert message.encode()
    assert not set(message) & set("\n\x1b")
    return None


def test_every_file_of_an_odd_folder_is_used_reported_or_refused(tmp_path):
    find_paths = pytest.importorskip("inference.predict").find_paths
    chance, read = random.Random(0), 0
    for number in range(FOLDERS):
        root = os.path.join(os.fsencode(tmp_path), b"%d\xfe" % number)
        for name in (b"a", b"b"):
            make(chance, os.path.join(root, name))
        where = os.fsdecode(root)
        for name in "ab":
            folder = os.path.join(where, name)
            assert unaccounted(folder, find_images(folder)) == []
        classes = outcome(find_classes, where)
        predicted = outcome(find_paths, [where])
        if classes is not None:
            images, found = classes
            assert sorted(found.images) == sorted(path for some in images.values() for path in some)
            trained = map(os.path.realpath, [*found.images, *found.refused])
            assert set(trained) == set(map(os.path.realpath, predicted[0]))
        data = outcome(ImageFolder, where, [5, 4], "RGB")
        if data is not None:
            if chance.random() < 0.2:
                os.unlink(chance.choice(data.paths))
            samples = [outcome(data.__getitem__, index) for index in range(len(data))]
            read += sum(sample is not None and sample[0].shape == (3, 5, 4) for sample in samples)
        shutil.rmtree(root)
    assert read > FOLDERS / 10  # a folder with one bad file is refused as a whole
