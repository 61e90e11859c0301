"""Text as tokens: the tokenizer, the token file and its windows."""

import json
import re
import shutil
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_loader.dataloader import DataLoader
from data_loader.sources import tokenize
from data_loader.sources.tokenize import END, load_tokenizer
from data_loader.sources.tokens import Tokens
from tests.helpers.project import ROOT
from utils import UserError

GOSPELS = ROOT / "examples" / "text" / "gospels.txt"
VOCABULARY = 400
CONTEXT = 16


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A file with the first 20,000 characters of the example's text, chapters apart."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(GOSPELS.read_text()[:20_000])
    return path


@pytest.fixture(scope="module")
def folder(text, tmp_path_factory):
    """The tokens of this text; each chapter is a document."""
    folder = tmp_path_factory.mktemp("tokens") / "tokens"
    words = ["--vocabulary", VOCABULARY, "--separator", "", "--output", folder]
    assert tokenize.main([str(text), *map(str, words)]) == 0
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder / "tokenizer.json")


@given(st.text())
def test_any_text_is_decoded_to_itself(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("odd", [f"a {END} b", "\r\n\t \0", "\U0010ffff\u0301é", "  a  b  "])
def test_texts_with_something_odd_are_decoded_to_themselves(folder, odd):
    dataset = Tokens(folder, "train", CONTEXT)
    assert dataset.decode(dataset.encode(odd)) == odd
    assert dataset.end not in dataset.encode(odd)


def test_the_token_file_is_numpys_and_has_the_text(folder, text):
    ids = np.load(folder / "tokens.npy")
    meta = json.loads((folder / "tokens.json").read_text())
    assert ids.dtype == np.uint16
    assert meta["vocabulary"] == VOCABULARY
    assert len(ids) == meta["tokens"] < len(text.read_bytes()) / 1.5
    chapters = text.read_text().split("\n\n")
    assert meta["documents"] == len(chapters) == np.count_nonzero(ids == meta["end"])
    written = Tokens(folder, "train", CONTEXT).decode(ids)
    assert written == "".join(END + one + "\n" for one in chapters).removesuffix("\n")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("stride", [None, 16, 9, 1])
def test_every_token_but_the_first_of_a_split_counts_once(folder, split, stride):
    ids = np.load(folder / "tokens.npy").astype(np.int32)
    border = round(0.9 * len(ids))
    ids = ids[:border] if split == "train" else ids[border:]
    dataset = Tokens(folder, split, CONTEXT, stride)
    inputs, targets, weight = dataset.__getitems__(np.arange(len(dataset)))
    at = np.arange(len(dataset))[:, None] * (stride or CONTEXT) + np.arange(CONTEXT)
    counted = at[weight == 1]
    assert sorted(counted) == list(range(len(ids) - 1))
    assert np.array_equal(inputs[weight == 1], ids[counted])
    assert np.array_equal(targets[weight == 1], ids[counted + 1])


def test_segments_and_positions_begin_anew_with_each_document(folder):
    dataset = Tokens(folder, "train", 300, documents=True)
    inputs, _, _ = dataset.__getitems__(np.arange(len(dataset)))
    for ids, segments, positions in zip(*inputs.values(), strict=True):
        segment = position = 0
        for index, token in enumerate(ids):
            position += index > 0
            if token == dataset.end:
                segment, position = segment + 1, 0
            assert (segments[index], positions[index]) == (segment, position)


def test_the_order_is_that_of_seed_and_epoch_alone_wherever_it_begins(folder):
    def batches(epoch, start=0, seed=1):
        loader = DataLoader(Tokens(folder, "train", CONTEXT), 32, shuffle=True, seed=seed)
        return list(loader.batches(epoch, start))

    whole, rest = batches(2), batches(2, 5)
    for one, other in zip(whole[5:], rest, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)
    assert whole[0]["weight"].shape == (32, CONTEXT)
    for others in (batches(1), batches(2, seed=2)):
        assert not np.array_equal(others[0]["inputs"], whole[0]["inputs"])


def test_blocks_of_a_file_are_its_text_whatever_their_size(text, folder, tmp_path, monkeypatch):
    words = ["--tokenizer", str(folder / "tokenizer.json"), "--separator", ""]
    long = tmp_path / "long.txt"
    long.write_text("é🙂x" * 500 + "\n" + text.read_text()[:3000], newline="")
    decoded = []
    for block in (1, 7, 100, 2**20):
        monkeypatch.setattr(tokenize, "BLOCK", block)
        output = tmp_path / f"{block}"
        assert tokenize.main([str(long), *words, "--output", str(output)]) == 0
        decoded.append(Tokens(output, "train", 4).decode(np.load(output / "tokens.npy")))
    assert decoded.count(decoded[0]) == len(decoded)
    assert decoded[0].replace(END, "") == long.read_text().replace("\n\n", "\n")


def test_a_large_text_takes_no_more_memory_than_a_small_one(tokenizer, text, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenize, "BLOCK", 2**14)

    def peak(copies):
        path = tmp_path / "large.txt"
        path.write_text(text.read_text() * copies)
        tracemalloc.start()
        tokenize.write_tokens([path], tmp_path / str(copies), tokenizer, None)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    small = peak(3)
    assert peak(40) < 1.2 * small + 2**16


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "has no text"),
        (b"\n\n\n", "has no text"),
        (b"abc\0def", "byte 3 is 0, so this is no text but a binary file"),
        ("naïve".encode("latin1"), "byte 2 is not UTF-8.*iconv"),
        (b"cut \xf0\x9f", "byte 4 is not UTF-8"),
        (None, "cannot read the text: No such file"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, capsys, content, expected):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    output = tmp_path / "out"
    assert tokenize.main([str(path), "--separator", "", "--output", str(output)]) == 1
    error = capsys.readouterr().err
    assert str(path) in error
    assert re.search(expected, error)
    assert not (output / "tokens.npy").exists()


def test_files_that_do_not_belong_together_are_refused(folder, tmp_path):
    def copied(change):
        for name in tokenize.FILES:
            (tmp_path / name).write_bytes((folder / name).read_bytes())
        change(tmp_path)
        return Tokens(tmp_path, "train", CONTEXT)

    def cut(path):
        content = (path / "tokens.npy").read_bytes()
        (path / "tokens.npy").write_bytes(content[:-10])

    def other(path):
        tokenize.train_tokenizer(["another text"], 300).save(str(path / "tokenizer.json"))

    for change, expected in [
        (cut, "cut or damaged"),
        (other, "another vocabulary than the one"),
        (lambda path: (path / "tokens.json").unlink(), "there is no tokens.json here; write it"),
        (lambda path: (path / "tokens.json").write_text("{}"), "cut or damaged"),
        (lambda path: np.save(path / "tokens.npy", np.zeros(5, np.uint16)), "has 5 tokens, but"),
    ]:
        with pytest.raises(UserError, match=expected):
            copied(change)
    for args, expected in [
        (("train", 10**6), "expected more than context"),
        (("validation", 16), "expected 'train' or 'test'"),
        (("train", 16, 17), "stride is 17"),
    ]:
        with pytest.raises(UserError, match=expected):
            Tokens(folder, *args)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"tokens": 1e400}', "[]", f'{{"end": {"9" * 5000}}}'], ids=len
)
def test_whatever_tokens_json_says_is_refused_in_words(folder, tmp_path, content):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokens.json").write_text(content)
    with pytest.raises(UserError, match="the tokens are cut or damaged"):
        Tokens(tmp_path, "train", CONTEXT)


def test_tokens_that_are_no_row_of_tokens_of_the_vocabulary_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tokens = np.load(folder / "tokens.npy")
    for array in (tokens[:, None].repeat(2, 1), tokens.astype(np.float32), tokens.astype(bool)):
        np.save(tmp_path / "tokens.npy", array)
        with pytest.raises(UserError, match="cut or damaged"):
            Tokens(tmp_path, "train", CONTEXT)
    tokens[3] = Tokens(folder, "train", CONTEXT).vocabulary
    np.save(tmp_path / "tokens.npy", tokens)
    with pytest.raises(UserError, match="but the vocabulary has"):
        Tokens(tmp_path, "train", CONTEXT).__getitems__(np.arange(2))


def test_a_folder_is_not_written_over(folder, text, capsys):
    assert tokenize.main([str(text), "--output", str(folder)]) == 1
    assert "has a tokens.npy already" in capsys.readouterr().err
    assert tokenize.main([str(text), "--vocabulary", "100", "--output", str(folder / "x")]) == 1
    assert "expected 257 or more" in capsys.readouterr().err
