"""Makes the function that orders each pass over a data set, of the `sampler` of a config."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from data_loader.samplers import balanced
from data_loader.streams import reads_batches
from utils import UserError

CHUNK = 4096  # examples read at once where only their labels are wanted


def make_sampler(
    sampler: Any, dataset: Any, indices: np.ndarray, seed: int, where: str
) -> Callable[[int], np.ndarray]:
    """Returns `number of the pass -> indices`, those of a sampler, each of them checked.

    Args:
        sampler: "balanced", weights, or a function; see `data_loader.samplers`.
        dataset: the data set.
        indices: (examples,) of the examples to choose from.
        seed: of the loader.
        where: name of the loader, for messages.

    Raises:
        UserError: it is no sampler, or what it returns does not fit.
    """
    if callable(sampler) or (isinstance(sampler, str) and sampler == "balanced"):
        function = sampler if callable(sampler) else balanced
        draw = functools.partial(function, read_labels(dataset)[indices])
    else:
        draw = functools.partial(weighted, _read_weights(sampler, len(dataset), where)[indices])
    first, again = (_checked(draw(1, seed), len(indices), where) for _ in range(2))
    if not np.array_equal(first, again):
        raise UserError(
            f"{where}: the sampler returned other indices when it was called again; expected the "
            "same for the same epoch and seed, or no run could be resumed"
        )

    def order(number):
        drawn = _checked(draw(number, seed), len(indices), where)
        if len(drawn) != len(first):
            raise UserError(
                f"{where}: the sampler returned {len(drawn)} indices for epoch {number}, and "
                f"{len(first)} for the first; expected as many for each"
            )
        return indices[drawn]

    return order


def read_labels(dataset: Any) -> np.ndarray:
    """Returns the targets of all examples: the data set's `labels`, or they are read one by one."""
    if hasattr(dataset, "labels"):
        return np.asarray(dataset.labels)
    if not reads_batches(dataset):
        return np.asarray([dataset[index][1] for index in range(len(dataset))])
    starts = range(0, len(dataset), CHUNK)
    chunks = [np.arange(start, min(start + CHUNK, len(dataset))) for start in starts]
    return np.concatenate([np.asarray(dataset.__getitems__(chunk)[1]) for chunk in chunks])


def weighted(weights: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    """Draws examples with a probability in proportion to their weights, with replacement.

    Args:
        weights: (examples,) numbers of at least 0.
        epoch: number of the epoch, from 1.
        seed: of the loader.

    Returns:
        (examples,) int64
    """
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return random.choice(len(weights), len(weights), p=weights / weights.sum())


def _read_weights(given: Any, examples: int, where: str) -> np.ndarray:
    """Returns the weights of all examples, (examples,) float64, of a list or a .npy file.

    Raises:
        UserError: there is not one for each example, or they are no weights.
    """
    try:
        loaded = np.load(given, allow_pickle=False) if isinstance(given, str) else given
        weights = np.asarray(loaded, np.float64)
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"{where}: sampler: cannot read weights: {error}") from error
    if weights.shape != (examples,):
        raise UserError(
            f"{where}: sampler: weights of shape {weights.shape}; expected ({examples},), one for "
            "each example of the data set, also of those that validation_split holds out"
        )
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong) or not weights.any():
        got = f"weight {wrong[0]} is {weights[wrong[0]]}" if len(wrong) else "all weights are 0"
        raise UserError(f"{where}: sampler: {got}; expected numbers of at least 0, not all 0")
    return weights


def _checked(indices: Any, examples: int, where: str) -> np.ndarray:
    """Returns what a sampler returned, (count,) int64, where it is indices of examples."""
    array = np.asarray(indices)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iu":
        raise UserError(
            f"{where}: the sampler returned {array.dtype} {array.shape}; expected indices of "
            "examples, (count,) integers"
        )
    if not 0 <= array.min() <= array.max() < examples:
        raise UserError(
            f"{where}: the sampler returned indices from {array.min()} to {array.max()}; expected "
            f"0 to {examples - 1}. It is given the labels of the examples to train with, without "
            "those that validation_split holds out, and its indices are of these"
        )
    return array.astype(np.int64)
