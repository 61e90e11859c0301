"""Data sets for the tests; by themselves, so that a worker process starts quickly."""

import os

import numpy as np


class Numbers:
    """Example i is (i, -i)."""

    def __init__(self, examples):
        self.examples = examples

    def __len__(self):
        return self.examples

    def __getitem__(self, index):
        return np.float32([index]), np.int32(-index)


class WholeNumbers(Numbers):
    """The same, read a whole batch at a time."""

    def __getitems__(self, indices):
        return indices[:, None].astype(np.float32), -indices.astype(np.int32)


class Failing(Numbers):
    """Raises at example 7."""

    def __getitem__(self, index):
        if index == 7:
            raise ZeroDivisionError("example 7 is odd")
        return super().__getitem__(index)


class Dying(Numbers):
    """Ends the process that reads it."""

    def __getitem__(self, index):
        os._exit(3)


def listed(batches):
    """Batches as lists, to be compared."""
    return [{name: np.asarray(value).tolist() for name, value in b.items()} for b in batches]
