"""Windows of tokens, read from the file that `python -m data_loader.sources.tokenize` writes."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.sources.tokenize import FILES, checksum_of, load_tokenizer
from data_loader.unchanged import check_unchanged, state_of
from utils import UserError


class Tokens:
    """Windows of a text as tokens, see docs/text.md: each position's target is the token after it.

        {"name": "Tokens", "args": {"folder": "data/tokens", "split": "train", "context": 128}}

    Every token of the split but the first is a target that counts, exactly once; the padding of the
    last window has the weight 0. The file is mapped, so it may be larger than memory.

    Args:
        folder: where the command wrote.
        split: "train", the beginning of the tokens, or "test", their end.
        context: tokens in a window.
        stride: tokens from the start of a window to the start of the next; None for `context`.
            With less, most tokens have at least `context - stride` before them.
        test_share: fraction of the tokens in the test split.
        documents: whether the inputs are a dict, {"tokens", "segments", "positions"}, for a network
            that does not look from one document into another: which document of the window a token
            is of, and its place in what the window has of it. A document begins with its
            end-of-text token, so that the last target of the one before it is that token.

    Attributes:
        vocabulary: number of different tokens that there are.
        end: the end-of-text token.

    Raises:
        UserError: a file is missing, cut or of another vocabulary; an argument is out of range.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        context: int = 128,
        stride: int | None = None,
        test_share: float = 0.1,
        documents: bool = False,
    ) -> None:
        self.folder, self.context, self.stride = Path(folder), context, stride or context
        if split not in ("train", "test"):
            raise UserError(f"Tokens: split is {split!r}; expected 'train' or 'test'.")
        if not 1 <= self.stride <= context:
            raise UserError(
                f"Tokens: stride is {stride}; expected 1 to context, which is {context}."
            )
        if not 0 <= test_share < 1:
            raise UserError(f"Tokens: test_share is {test_share}; expected 0 or more, below 1.")
        meta = _read_meta(self.folder)
        self.vocabulary, self.end, self.documents = meta["vocabulary"], meta["end"], documents
        self._checksum, self._state = meta["checksum"], state_of(self.folder / FILES[0])
        border = round((1 - test_share) * meta["tokens"])
        self._first, self._last = (0, border) if split == "train" else (border, meta["tokens"])
        if self._last - self._first <= context:
            raise UserError(
                f"{folder}: the split {split!r} has {self._last - self._first} tokens; expected "
                f"more than context, which is {context}."
            )

    def __len__(self) -> int:
        """Returns the number of windows."""
        return 1 + -(-(self._last - self._first - 1 - self.context) // self.stride)

    def __getitems__(self, indices: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        """Returns inputs, targets and weights of windows, (batch, context) each."""
        check_unchanged(self.folder / FILES[0], self._state)
        mapped = np.load(self.folder / FILES[0], mmap_mode="r")
        starts = self._first + indices * self.stride
        at = starts[:, None] + np.arange(self.context + 1)
        tokens = mapped[np.minimum(at, self._last - 1)].astype(np.int32)
        if (largest := tokens.max()) >= self.vocabulary:
            raise UserError(
                f"{self.folder / FILES[0]}: it has the token {largest}, but the vocabulary has "
                f"{self.vocabulary}: it is damaged, or of another tokenizer"
            )
        weight = (at[:, 1:] < self._last).astype(np.float32)
        weight[indices > 0, : self.context - self.stride] = 0  # counted by an earlier window
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        if not self.documents:
            return inputs, targets, weight
        begins, place = inputs == self.end, np.arange(self.context)
        begin = np.maximum.accumulate(np.where(begins, place, 0), 1)
        segments = begins.cumsum(1, dtype=np.int32)
        positions = (place - begin).astype(np.int32)
        return {"tokens": inputs, "segments": segments, "positions": positions}, targets, weight

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of a text."""
        return load_tokenizer(self.folder / FILES[1]).encode(text).ids

    def decode(self, tokens: Iterable[int]) -> str:
        """Returns the text of tokens; bytes that are no UTF-8 are shown as �."""
        tokenizer = load_tokenizer(self.folder / FILES[1])
        return tokenizer.decode([int(token) for token in tokens], skip_special_tokens=False)

    def checksum(self) -> str:
        """Returns the CRC-32 of the tokens as they were written, 8 hexadecimal digits."""
        return self._checksum


def _read_meta(folder):
    """Returns what is in tokens.json, compared with the other two files."""
    tokens, tokenizer, path = (folder / name for name in FILES)
    advice = f"write it again: python -m data_loader.sources.tokenize FILES --output {folder}"
    if missing := [one.name for one in (tokens, tokenizer, path) if not one.is_file()]:
        raise UserError(f"{folder}: there is no {' and no '.join(missing)} here; {advice}")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        count, end, size = (int(meta[name]) for name in ("tokens", "end", "vocabulary"))
        mapped = np.load(tokens, mmap_mode="r")
        if mapped.ndim != 1 or mapped.dtype.kind != "u":
            raise ValueError(f"an array {mapped.dtype} {mapped.shape}")
    except (ArithmeticError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: the tokens are cut or damaged ({error}); {advice}") from error
    length = len(mapped)
    if length != count:
        raise UserError(f"{tokens}: it has {length} tokens, but {path.name} says {count}; {advice}")
    if checksum_of(tokenizer) != meta.get("tokenizer") or not 0 <= end < size:
        raise UserError(
            f"{tokenizer}: this is another vocabulary than the one that {tokens.name} was written "
            f"with; bring that back, or {advice}"
        )
    return meta
