"""A character-level language model: it predicts the next character of a text.

A small transformer (https://arxiv.org/abs/1706.03762, decoder only) on ASCII codes, with everything
that its config names: the data set, the collate function, the network and a metric.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from examples.text.generate import generate
from model.model import SMALL, transformer_block
from model.modules import Layers, embedding, layer_norm, linear
from training.loss import cross_entropy
from training.metrics import aggregated
from utils import UserError

CODES = 128  # of ASCII: the code of a character is its token, so no vocabulary is needed


class Text:
    """Windows of a text; the target of each position is the character that follows it.

    Windows may overlap. A character that an earlier window has counted is not counted again: for
    any stride, every character of the text but the first counts exactly once, and most of them with
    at least `context - stride` characters before them.

    Args:
        path: text file of ASCII characters.
        split: "train", the beginning of the text, or "test", its end.
        context: characters in a window.
        stride: characters from the start of a window to the start of the next.
        test_share: fraction of the text in the test split.

    Attributes:
        codes: (characters,) int32, the split's text.

    Raises:
        UserError: the file is missing, too short or not ASCII; or an argument is out of range.
    """

    def __init__(self, path, split, context=128, stride=128, test_share=0.1):
        text = _read(Path(path))
        if split not in ("train", "test"):
            raise UserError(f"Text: split is {split!r}; expected 'train' or 'test'.")
        if not 1 <= stride <= context:
            raise UserError(f"Text: stride is {stride}; expected 1 to context, which is {context}.")
        border = round((1 - test_share) * len(text))
        self.codes = text[:border] if split == "train" else text[border:]
        if len(self.codes) <= context:
            raise UserError(
                f"{path}: the split {split!r} has {len(self.codes)} characters; expected more than "
                f"context, which is {context}."
            )
        self.context, self.stride = context, stride

    def __len__(self):
        """Returns the number of windows."""
        return 1 + -(-(len(self.codes) - 1 - self.context) // self.stride)

    def __getitem__(self, index):
        """Returns (inputs, targets, weight) of a window, (context,) each; weight is 0 or 1."""
        start = index * self.stride
        codes = self.codes[start : start + self.context + 1]
        missing = self.context + 1 - len(codes)
        weight = np.ones(self.context, np.float32)
        weight[len(codes) - 1 :] = 0  # behind the end of the text
        weight[: self.context - self.stride if index else 0] = 0  # counted by an earlier window
        codes = np.pad(codes, (0, missing))
        return codes[:-1], codes[1:], weight

    def encode(self, text):
        """Returns the codes of a text."""
        if not text.isascii():
            raise UserError(f"{text!r}: expected ASCII characters")
        return list(text.encode("ascii"))

    def decode(self, codes):
        """Returns the text of codes."""
        return bytes(codes).decode("ascii")


def weighted(samples):
    """Stacks samples into a batch with a weight for each position: a collate function.

    Args:
        samples: list of (input, target, weight), arrays of the same shape.

    Returns:
        {"inputs": (batch, ...), "targets": (batch, ...), "weight": (batch, ...)}
    """
    inputs, targets, weight = map(np.stack, zip(*samples, strict=True))
    return {"inputs": inputs, "targets": targets, "weight": weight}


def writer(
    x, context=128, features=64, depth=2, heads=4, drop_rate=0.0, vocabulary=CODES,
    *, params=None, key=None, train=False
):  # fmt: skip
    """Predicts the character, or token, after each position from those up to that position.

    Args:
        x: (batch, length) integers, ASCII codes or tokens; the length is at most `context`. Or a
            dict with these as "tokens", "segments" and "positions", to keep documents apart
        context: largest number of characters that it can attend to
        features: number of features of each position
        depth: number of transformer blocks
        heads: number of attention heads; they share the features equally
        drop_rate: probability of skipping half a block for an example while training
        vocabulary: number of different tokens

    Returns:
        logits: (batch, length, vocabulary)
        params: the network's parameters
    """
    layer = Layers(params, key, train)
    codes = x["tokens"] if isinstance(x, dict) else x
    length = codes.shape[1]
    place, past = slice(length), jnp.tril(jnp.ones((length, length), bool))
    if isinstance(x, dict):  # a position sees only its own document
        place, segments = x["positions"], x["segments"]
        past &= (segments[:, :, None] == segments[:, None, :])[:, None]
    y = layer("characters", embedding, codes, vocabulary, features)
    y = y + layer.array("position", (context, features), SMALL)[place].astype(y.dtype)
    for index in range(depth):
        y = layer(f"block{index}", transformer_block, y, heads, mask=past, drop_rate=drop_rate)
    y = layer("norm", layer_norm, y)
    return layer("head", linear, y, vocabulary, initializer=SMALL), layer.params


@aggregated(lambda total, weight: float(np.exp(np.mean(total) / weight)))
def perplexity(logits, codes):
    """Computes the perplexity: the number of equally likely characters of the same uncertainty.

    Args:
        logits: (batch, length, vocabulary).
        codes: (batch, length) integers, the characters to be predicted.

    Returns:
        (batch, length) values in nats; aggregated: exp of their mean, at least 1.
    """
    return cross_entropy(logits, codes)


def show_sample(run, prompt="And Jesus said", count=200):
    """Writes on with the network as it is: a callback, whose text goes to the trackers."""
    dataset = run.experiment.loaders["train"].dataset
    codes, heads = dataset.encode(prompt), run.config.model.args.get("heads", 4)
    added = generate(run.params, codes, count, jax.random.key(0), heads, temperature=0.8)
    run.log_text("sample", dataset.decode([*codes, *added]))


def _read(path):
    try:
        codes = np.frombuffer(path.read_bytes(), np.uint8).astype(np.int32)
    except OSError as error:
        raise UserError(f"{path}: cannot read the text: {error.strerror}.") from None
    if codes.max(initial=0) >= CODES:
        at = int(np.argmax(codes >= CODES))
        raise UserError(f"{path}: byte {at} is not an ASCII character. Replace all that are not.")
    return codes
