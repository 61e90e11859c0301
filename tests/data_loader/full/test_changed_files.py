"""Files that another program changes while a data set reads them."""

import io
import json
import os
import tarfile
import zlib

import datasets
import numpy as np
import pytest
from PIL import Image

import train
from data_loader.dataloader import ImageFolder
from data_loader.sources.arrays import Arrays
from data_loader.sources.hugging_face import HuggingFace, HuggingFaceStream
from data_loader.sources.shards import TarShards
from data_loader.sources.tokens import Tokens
from tests.helpers.project import ROOT
from training.checkpoint.naming import latest
from utils import UserError

CHANGES = {
    "other content": lambda path: path.write_bytes(path.read_bytes()[::-1]),
    "cut": lambda path: os.truncate(path, 200),
    "removed": lambda path: path.unlink(),
}


def arrays(folder):
    path = folder / "x.npy"
    np.save(path, np.arange(64, dtype=np.float32).reshape(16, 4))
    np.save(folder / "y.npy", np.arange(16) % 2)
    dataset = Arrays(str(path), str(folder / "y.npy"))
    return path, lambda: dataset[np.arange(8)]


def shards(folder):
    path = folder / "0.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("1.txt", "1.cls"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"7"))
    dataset = TarShards(str(path), inputs="cls", targets="cls")
    (record,) = dataset
    return path, lambda: dataset.decode(record)


def tokens(folder):
    path = folder / "tokens.npy"
    np.save(path, np.arange(64, dtype="<u2"))
    (folder / "tokenizer.json").write_text("{}")
    checksum = f"{zlib.crc32(b'{}'):08x}"
    meta = {"tokens": 64, "end": 0, "vocabulary": 65, "checksum": "", "tokenizer": checksum}
    (folder / "tokens.json").write_text(json.dumps(meta))
    dataset = Tokens(folder, "train", context=8, test_share=0)
    return path, lambda: dataset.__getitems__(np.arange(2))


def pictures(folder):
    path = folder / "train" / "a" / "1.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    dataset = ImageFolder(folder / "train", (8, 8))
    dataset.checksum()  # as a run calls it
    return path, lambda: dataset[0]


def hugging_face(folder, kind=HuggingFace):
    rows = {"x": [[index / 2, 1.0] for index in range(64)], "y": [index % 2 for index in range(64)]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(folder / "saved"), num_shards=2)
    dataset = kind(str(folder / "saved"), "x", "y")
    path = folder / "saved" / "data-00001-of-00002.arrow"
    return path, lambda: list(dataset) if kind is HuggingFaceStream else dataset[40]


def streamed(folder):
    return hugging_face(folder, HuggingFaceStream)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [arrays, shards, tokens, pictures, hugging_face, streamed])
def test_a_file_that_is_changed_while_it_is_read_is_refused_with_its_name(tmp_path, kind, change):
    path, read = kind(tmp_path)
    read()
    times = path.stat()
    CHANGES[change](path)
    if path.exists():  # whatever the clock says: it may have been set back
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns - 10**9))
    words = "cannot be read any more" if change == "removed" else "another program changed it"
    with pytest.raises(UserError, match=f"{path.name}: {words}"):
        read()


def test_a_stream_of_parquet_files_that_are_cut_or_removed_is_refused_in_words(tmp_path):
    path = tmp_path / "train.parquet"
    table = datasets.Dataset.from_dict({"x": [1.0, 2.0], "y": [0, 1]})
    table.to_parquet(str(path))
    dataset = HuggingFaceStream(str(tmp_path), "x", "y", "train")
    assert len(list(dataset)) == 2
    for change in ("cut", "removed"):
        CHANGES[change](path)
        with pytest.raises(UserError, match="cannot be read any further"):
            list(dataset)


def test_training_stops_with_one_message_and_continues_once_the_data_are_back(
    config, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(ROOT)
    path, _ = arrays(tmp_path)
    dataset = {"name": "Arrays", "args": {"inputs": str(path), "targets": str(tmp_path / "y.npy")}}
    for split in ("train", "test"):
        config["data_loader"][split]["args"] |= {"dataset": dataset, "batch_size": 4}
    config["data_loader"] |= {"preprocess": None, "augment": None}
    config["model"] = {"name": "mlp", "args": {"feat_dims": [4], "classes": 2}}
    config["training"]["epochs"] = 3
    content, times, folders = path.read_bytes(), path.stat(), []

    def change(run):
        if run.epoch == 1:
            folders.append(run.folder)
            path.write_bytes(content[::-1])
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))

    with pytest.raises(UserError, match="another program changed it while it is read"):
        train.fit(config, callbacks=[(change, "1 epoch")])
    assert "all that was trained is saved" in capsys.readouterr().out
    path.write_bytes(content)
    assert train.main(["--resume", str(folders[0])]) == 0
    assert latest(folders[0]).name == "checkpoint-epoch_3.params"
