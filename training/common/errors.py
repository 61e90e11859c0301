"""Errors that more than one folder knows."""

from utils import UserError


class FunctionError(UserError, ValueError):
    """A function that the config names refused what it was given, or returned what does not fit."""


class NonFiniteError(Exception):
    """An update met a loss or gradient that is not finite; `batch` is its index in the epoch."""

    def __init__(self, batch):
        super().__init__(batch)
        self.batch = batch
