"""States, arrays and processes for the tests of checkpoints."""

import os
import subprocess
import sys
from typing import NamedTuple

import jax
import numpy as np

from tests.helpers.project import ROOT

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


def python(script, *arguments):
    """Returns what a Python process prints; it must succeed."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout
