"""Text as tokens: a byte-level BPE tokenizer trained on one's own files, and windows of them.

python -m data_loader.sources.tokenize book.txt more/*.txt --vocabulary 8000 --output data/tokens
python -m data_loader.sources.tokenize new.txt --tokenizer data/tokens/tokenizer.json --output new

It writes tokens.npy, tokenizer.json (of the library `tokenizers`) and tokens.json, which says what
is in the first. Neither the text nor the tokens need fit in memory.
"""

import argparse
import codecs
import glob
import json
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import utils
from data_loader.locked_files import whole_file
from utils import UserError

END = "<|endoftext|>"  # stands before each document
BLOCK = 2**20  # bytes that are read at once
INSTALL = "pip install tokenizers==0.23.3"
FILES = ("tokens.npy", "tokenizer.json", "tokens.json")


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """Returns a byte-level BPE tokenizer (Sennrich et al., arXiv:1508.07909) trained on texts.

    Whatever text it encodes, it decodes to the same: its first tokens are END and the 256 bytes.

    Args:
        texts: strings.
        vocabulary: number of tokens at most; a small text has fewer pairs to merge.
    """
    tokenizers = _library()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=byte_level.alphabet(), special_tokens=[END],
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return _plain(tokenizer)


def load_tokenizer(path: str | Path) -> Any:
    """Returns the tokenizer of a file that `tokenizers` wrote."""
    try:
        return _plain(_library().Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises Exception itself
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: this is no tokenizer of `tokenizers`: {error}") from error


def write_tokens(
    paths: Sequence[Path], folder: Path, tokenizer: Any, separator: str | None
) -> dict:
    """Writes the three files; returns what tokens.json has.

    Args:
        paths: of UTF-8 text files; each is a document, or several with a separator.
        folder: to write to.
        tokenizer: of `tokenizers`.
        separator: the line between documents; None: each file is one.
    """
    end, size = tokenizer.token_to_id(END), tokenizer.get_vocab_size()
    if end is None:
        raise UserError(f"the tokenizer has no token {END}, which stands before each document")
    dtype = np.dtype("<u2" if size <= 2**16 else "<u4")
    count = documents = checksum = 0
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / FILES[0], alone=True) as file:  # which has its name last
        check_empty(folder)
        _write_header(file, dtype, 0)
        for begins, text in read_documents(paths, separator):
            ids = np.array([end] * begins + tokenizer.encode(text).ids, dtype)
            file.write(ids.tobytes())
            checksum = zlib.crc32(ids.tobytes(), checksum)
            count, documents = count + len(ids), documents + begins
        _write_header(file, dtype, count)
        tokenizer.save(str(folder / FILES[1]))
        meta = {
            "tokens": count, "documents": documents, "vocabulary": size, "end": end,
            "checksum": f"{checksum:08x}", "tokenizer": checksum_of(folder / FILES[1]),
        }  # fmt: skip
        (folder / FILES[2]).write_text(json.dumps(meta, indent=4) + "\n")
    return meta


def check_empty(folder: Path) -> None:
    """Refuses a folder that has tokens."""
    if there := [name for name in FILES if (folder / name).exists()]:
        raise UserError(f"--output: {folder} has a {there[0]} already; name another, or delete it")


def read_documents(paths: Sequence[Path], separator: str | None) -> Iterator[tuple[bool, str]]:
    """Yields (whether a document begins, text) of pieces of the files, each of about BLOCK bytes.

    Raises:
        UserError: a file is missing, empty, or no UTF-8 text.
    """
    line = re.compile("(?!)" if separator is None else rf"(?<=\n){re.escape(separator)}\r?\n")
    for path in paths:
        begins = empty = True
        start = "\n"  # before a block that begins with a line
        for block in _read_blocks(path):
            pieces = line.split(start + block)
            pieces[0] = pieces[0][len(start) :]
            for index, piece in enumerate(pieces):
                begins = begins or index > 0
                if piece:
                    yield begins, piece
                    begins = empty = False
            start = "\n" if block.endswith("\n") else ""
        if empty:
            raise UserError(f"{path}: the file has no text; leave it out")


def _read_blocks(path):
    """Yields the text of a file, cut behind lines, or where these are long, between words."""
    decoder, rest, done = codecs.getincrementaldecoder("utf-8")(), "", 0
    try:
        with open(path, "rb") as file:
            while True:
                data = file.read(BLOCK)
                held = len(decoder.getstate()[0])
                if (zero := data.find(0)) >= 0:
                    raise UserError(
                        f"{path}: byte {done + zero} is 0, so this is no text but a binary file"
                    )
                try:
                    text = rest + decoder.decode(data, final=not data)
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{path}: byte {done - held + error.start} is not UTF-8 ({error.reason}). "
                        f"Convert the file: iconv -f latin1 -t utf-8 {path}"
                    ) from error
                done += len(data)
                if not data:
                    if text:
                        yield text
                    return
                cut = 1 + text.rfind("\n") or 1 + text.rfind(" ") or len(text)
                rest = text[cut:]
                yield text[:cut]
    except OSError as error:
        raise UserError(f"{path}: cannot read the text: {error.strerror}") from error


def _write_header(file, dtype, count):
    """Writes the header of a .npy file; it has room for any length, so it can be written again."""
    file.seek(0)
    header = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)


def checksum_of(path: Path) -> str:
    """Returns the CRC-32 of a file, 8 hexadecimal digits."""
    return f"{zlib.crc32(path.read_bytes()):08x}"


def _plain(tokenizer):
    """Has the name of a special token in a text be text, so that it is decoded to itself."""
    tokenizer.encode_special_tokens = True
    return tokenizer


def _library():
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(f"a tokenizer needs the package `tokenizers`: {INSTALL}") from error
    return tokenizers


@utils.command
def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    options = parse_arguments(argv)
    folder, paths = Path(options.output), []
    for word in options.files:
        found = [word] if os.path.exists(word) else sorted(glob.glob(word))
        paths += [Path(one) for one in found or [word]]
    check_empty(folder)
    if options.tokenizer:
        tokenizer = load_tokenizer(options.tokenizer)
    elif options.vocabulary < 257:
        raise UserError(f"--vocabulary: expected 257 or more, got {options.vocabulary}: there are "
                        "256 bytes and the end-of-text token")  # fmt: skip
    else:
        texts = (text for _, text in read_documents(paths, options.separator))
        tokenizer = train_tokenizer(texts, options.vocabulary)
    meta = write_tokens(paths, folder, tokenizer, options.separator)
    bytes_ = sum(path.stat().st_size for path in paths)
    print(
        f"{meta['tokens']:,} tokens of {meta['documents']:,} documents in {folder}, "
        f"{bytes_ / meta['tokens']:.2f} bytes each; the vocabulary has {meta['vocabulary']:,}"
    )


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m data_loader.sources.tokenize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="UTF-8 text; each is a document")
    parser.add_argument("--vocabulary", type=int, default=8000, help="tokens to learn (8000)")
    parser.add_argument("--tokenizer", metavar="FILE", help="use this one in place of learning it")
    parser.add_argument("--separator", metavar="LINE", help='between documents; "": an empty line')
    parser.add_argument("--output", required=True, metavar="FOLDER")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
