"""A state and comparisons of arrays for the tests of checkpoints."""

from typing import NamedTuple

import jax
import numpy as np

META = {"epoch": 3, "batch": None, "best": float("inf"), "config": {"title": "Ünïcode \n"}}


class State(NamedTuple):
    step: object
    params: dict
    optimizers: tuple


def same(left, right):
    """Whether two arrays have the same dtype, shape and bits."""
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and (np.asarray(left).tobytes() == np.asarray(right).tobytes())
    )


def same_trees(left, right):
    """Whether two trees have the same structure and the same arrays."""
    return jax.tree.structure(left) == jax.tree.structure(right) and all(
        map(same, jax.tree.leaves(left), jax.tree.leaves(right))
    )
