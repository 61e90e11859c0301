"""Samplers: which examples are in an epoch, how often, and in which order.

A sampler is a function `f(labels, epoch, seed) -> indices` that returns the same whenever it is
given the same. The config names it: `"sampler": "balanced"`, or a function of your own as
"package.module:function". `labels` are the targets of the examples to train with, the indices are
of these. A list of weights in place of a name, or the path of a .npy file with them, draws examples
in proportion.
"""

import numpy as np

from utils import UserError


def balanced(labels: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    """Draws from every class equally often, as many examples in all as there are.

    The examples of a rare class are repeated, each as often as the others of its class or once
    more; those of a frequent class take turns by chance.

    Args:
        labels: (examples,) integers or texts.
        epoch: number of the epoch, from 1.
        seed: of the loader.

    Returns:
        (examples,) int64
    """
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    if labels.ndim != 1 or labels.dtype.kind not in "iubUS":
        raise UserError(
            f"sampler balanced: the targets are {labels.dtype} {labels.shape}; expected a class "
            "for each example. Give weights, or name a sampler of your own"
        )
    classes, members = np.unique(labels, return_inverse=True)
    counts = np.full(len(classes), len(labels) // len(classes))
    counts[random.permutation(len(classes))[: len(labels) - counts.sum()]] += 1
    drawn = [
        np.resize(random.permutation(np.flatnonzero(members == index)), count)
        for index, count in enumerate(counts)
    ]
    return random.permutation(np.concatenate(drawn))
