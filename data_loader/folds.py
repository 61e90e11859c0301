"""Folds: equal parts of a data set, each of which is the validation data of one run."""

import logging
from typing import Any

import numpy as np

from utils import UserError

LOG = logging.getLogger("main")


def check_folds(
    fold: Any, folds: Any, groups: Any, examples: int, held_out: Any, name: str
) -> tuple[int, int, Any] | None:
    """Returns (fold, folds, groups) of a loader, None without any; refuses what does not fit.

    Args:
        fold, folds, groups: see `BaseDataLoader`.
        examples: number of examples of the data set.
        held_out: the loader's validation_split.
        name: of the loader, for messages.
    """
    if fold is None and folds is None:
        if groups is not None:
            raise UserError(f"{name}: groups are kept together in folds; give fold and folds")
        return None
    whole = all(type(one) is int for one in (fold, folds))
    if not whole or not 2 <= folds <= examples or not 0 <= fold < folds:
        raise UserError(
            f"{name}: fold is {fold!r} and folds {folds!r}; expected of folds a whole number from "
            f"2 to the number of examples, {examples}, and of fold one from 0 to folds - 1"
        )
    if held_out:
        raise UserError(
            f"{name}: validation_split is {held_out!r}, but fold {fold} of {folds} is held out; "
            "expected one of the two"
        )
    return fold, folds, groups


def fold_numbers(
    order: np.ndarray, folds: int, labels: np.ndarray | None, groups: np.ndarray | None
) -> np.ndarray:
    """Returns the fold of each example, (examples,), from 0 to folds - 1.

    Without groups, the sizes of the folds differ by one example at most, and so do the numbers of
    each class in them. With groups, the largest come first, each into the fold where it keeps the
    classes most even.

    Args:
        order: (examples,) the examples in random order.
        folds: number of folds.
        labels: (examples,) the class of each, or None.
        groups: (examples,) what belongs together, or None.
    """
    classes = np.zeros(len(order), int)
    if labels is not None:
        names, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        if sizes.min() < folds:
            rare = names[sizes.argmin()]
            LOG.warning("folds: class %s has %d examples for %d folds; some have none of it",
                        rare, sizes.min(), folds)  # fmt: skip
    numbers = np.empty(len(order), int)
    if groups is None:
        numbers[order[np.argsort(classes[order], kind="stable")]] = np.arange(len(order)) % folds
        return numbers
    _, members = np.unique(groups[order], return_inverse=True)
    counts = np.zeros((members.max() + 1, classes.max() + 1))  # of the classes in each group
    np.add.at(counts, (members, classes[order]), 1)
    if len(counts) < folds:
        raise UserError(f"folds is {folds}, but there are only {len(counts)} groups; lower folds")
    counts /= counts.sum(0)  # a rare class weighs as much as a frequent one
    filled, fold_of = np.zeros((folds, counts.shape[1])), np.empty(len(counts), int)
    first = np.unique(members, return_index=True)[1]  # where each group is first in the order
    for group in np.lexsort((first, -counts.sum(1))):
        chosen = np.argmin(((filled + counts[group]) ** 2 - filled**2).sum(1))
        filled[chosen] += counts[group]
        fold_of[group] = chosen
    numbers[order] = fold_of[members]
    return numbers


def read_groups(groups: Any, dataset: Any, name: str) -> np.ndarray | None:
    """Returns the group of each example, (examples,), of a loader's `groups`; None without any."""
    if groups is None:
        return None
    known = getattr(dataset, groups, None) if isinstance(groups, str) else groups
    array = np.asarray(known if known is not None else 0)
    if array.shape != (len(dataset),) or array.dtype.kind not in "iubUS":
        raise UserError(
            f"{name}: groups is {str(groups)[:60]!r}; expected the name of an attribute of the "
            f"data set, or a list, with a whole number or a text for each of the {len(dataset)} "
            "examples"
        )
    return array
