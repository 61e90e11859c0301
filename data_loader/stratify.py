"""A part of a data set with every class in proportion."""

from typing import Any

import numpy as np


def labels_of(dataset: Any) -> np.ndarray | None:
    """Returns a data set's `labels`, (examples,), or None where it has no such."""
    labels = np.asarray(getattr(dataset, "labels", 0))
    fits = labels.dtype.kind in "iubUS" and labels.shape == (len(dataset),)
    return labels if fits else None


def classes_in_proportion(order: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Returns an order of the examples whose first `count` are the same share of every class.

    A class gets its share rounded down, or up where the fractions are largest (the method of
    largest remainders); one example of it, at least, is not among them as long as that is possible.

    Args:
        order: (examples,) the examples in random order.
        labels: (examples,) the class of each.
        count: number of examples.
    """
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    share = np.minimum(count * sizes / len(labels), sizes - 1)
    taken = np.floor(share).astype(int)
    while (left := count - taken.sum()) > 0:
        more = np.flatnonzero(taken < sizes - 1)
        if not len(more):  # only the last examples of the classes are left
            more = np.flatnonzero(taken < sizes)
        largest = np.argsort((taken - share)[more], kind="stable")
        taken[more[largest[:left]]] += 1
    by_class = order[np.argsort(classes[order], kind="stable")]
    rank = np.empty(len(order), int)  # of each example in its class
    rank[by_class] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    first = rank[order] < taken[classes[order]]
    return np.concatenate([order[first], order[~first]])
