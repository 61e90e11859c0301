"""Files that one process writes at a time, and what a killed one leaves of them."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from data_loader.locked_files import whole_file
from data_loader.sources import tokenize
from inference.predict import write_csv
from inference.serving.results import MaskFolder
from tests.helpers.project import ROOT
from utils import UserError

KILLED = """
import os, signal, sys
from inference.predict import write_csv

def results():
    yield "1.png", None, 0.5
    os.kill(os.getpid(), signal.SIGKILL)

write_csv(sys.argv[1], results(), lambda result: {"p": result})
"""


def test_what_a_killed_predict_leaves_is_gone_after_the_next(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("earlier")
    killed = subprocess.run([sys.executable, "-c", KILLED, path], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 2
    write_csv(path, [("2.png", None, 0.25)], lambda result: {"p": result})
    assert path.read_bytes() == b"path,p\r\n2.png,0.25\r\n"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_living_process_writes_is_left_where_it_is(tmp_path):
    path = tmp_path / "predictions.csv"
    with whole_file(path) as file:
        write_csv(path, [("2.png", None, 0.25)], lambda result: {"p": result})
        assert len(list(tmp_path.iterdir())) == 2
        file.write(b"the last to end")
    assert path.read_text() == "the last to end"
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_mask_removes_what_a_killed_predict_left_of_masks(tmp_path):
    for name in ("road.png.01234567.tmp", "mine.tmp", "notes.png.tmp"):
        (tmp_path / name).write_text("")
    classifier = SimpleNamespace(kind="softmax", classes=["a", "b"], shape=(2, 3, 3))
    MaskFolder(tmp_path).write(classifier, "sky.jpg", None, np.zeros((2, 3, 3)), 0.5)
    assert {one.name for one in tmp_path.iterdir()} == {"sky.png", "mine.tmp", "notes.png.tmp"}


def test_of_two_tokenize_commands_in_a_folder_one_is_refused_and_changes_nothing(tmp_path):
    folder, text = tmp_path / "tokens", tmp_path / "text.txt"
    text.write_text("one two three\n" * 20)
    folder.mkdir()
    tokenizer = tokenize.train_tokenizer([text.read_text()], 300)
    with whole_file(folder / "tokens.npy", alone=True):
        with pytest.raises(UserError, match="another process is writing it"):
            tokenize.write_tokens([text], folder, tokenizer, None)
        assert [one.name for one in folder.iterdir()] == ["tokens.npy.part"]
    with pytest.raises(
        UserError, match=r"has a tokens\.npy already"
    ):  # the other has just finished
        tokenize.write_tokens([text], folder, tokenizer, None)
    assert [one.name for one in folder.iterdir()] == ["tokens.npy"]


def test_tokenize_leaves_nothing_of_a_text_that_it_refuses(tmp_path):
    text = tmp_path / "text.txt"
    text.write_bytes(b"good\n" * 300_000 + b"\xff")
    tokenizer = tokenize.train_tokenizer(["good\n"], 300)
    with pytest.raises(UserError, match="is not UTF-8"):
        tokenize.write_tokens([text], tmp_path / "tokens", tokenizer, None)
    assert not list((tmp_path / "tokens").iterdir())
