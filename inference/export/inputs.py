"""The inputs that --input names, and whether they fit the run's data."""

import re

import numpy as np

from inference.export.network import Array
from utils import UserError

SPEC = re.compile(r"(?:(\w+)\s*[=:]\s*)?[(\[]([\d\s,]*)[)\]]\s*:?\s*([a-z]+\d*)?")


def parse_inputs(words):
    """Returns the Arrays that --input names; the first number of a shape is the batch.

    Args:
        words: list of words: "(1, 1, 28, 28)", or 1 1 28 28; or several inputs, each with a name
            and an optional dtype: "tokens=(1, 16) int32" "picture=(1, 1, 28, 28)".

    Raises:
        UserError: they do not have this form.
    """
    text = " ".join(words)
    if re.fullmatch(r"[\d\s,]+[a-z\d]*", text):
        numbers, dtype = re.fullmatch(r"([\d\s,]+?)\s*([a-z]+\d*)?", text).groups()
        text = f"({numbers}) {dtype or ''}"
    found = [match.groups() for match in SPEC.finditer(text)]
    if not found or SPEC.sub("", text).strip(" ,;"):
        raise UserError(
            f"--input: {text!r} is no shape; expected '(1, 1, 28, 28)', or several like "
            "'tokens=(1, 16) int32' 'picture=(1, 1, 28, 28) uint8'"
        )
    arrays = []
    for index, (name, numbers, dtype) in enumerate(found):
        sizes = [int(number) for number in re.findall(r"\d+", numbers)]
        if not sizes or 0 in sizes:
            raise UserError(f"--input: ({numbers}) is no shape; expected the batch, and no zeros")
        try:
            dtype = np.dtype(dtype) if dtype else None
        except TypeError:
            raise UserError(f"--input: no dtype is called {dtype!r}") from None
        unnamed = "input" if len(found) == 1 else f"input_{index}"
        arrays.append(Array(name or unnamed, tuple(sizes[1:]), dtype))
    return arrays


def parse_ranges(words):
    """Returns {name: (lowest, highest)} of --range: "length=0..40" "x=-1.5..1.5"."""
    ranges = {}
    for word in words:
        name, _, ends = word.rpartition("=")
        try:
            low, high = (float(end) for end in ends.split(".."))
        except ValueError:
            low = high = float("nan")
        if not low <= high or not name:
            raise UserError(f"--range: {word!r}; expected NAME=LOWEST..HIGHEST, like length=0..40")
        ranges[name] = low, high
    return ranges


def with_specs(inputs, specs):
    """Returns the Arrays of the run's data with the names and dtypes of --input, if any."""
    if not specs:
        return inputs
    wanted = ", ".join(f"{one.name}={_shape(one)} {one.dtype}" for one in inputs)
    if [one.shape for one in specs] != [one.shape for one in inputs]:
        got = ", ".join(map(_shape, specs))
        raise UserError(
            f"--input: {got} does not fit the run's data, which are {wanted}; "
            "leave --input out to take them"
        )
    checked = []
    for spec, one in zip(specs, inputs, strict=True):
        dtype = one.dtype if spec.dtype is None else spec.dtype
        if dtype not in (one.dtype, np.float32):
            raise UserError(
                f"--input: {dtype} does not fit the run's data, which are {wanted}; "
                "expected their dtype or float32"
            )
        name = one.name if spec.name.startswith("input") else spec.name
        checked.append(Array(name, one.shape, np.dtype(dtype)))
    return checked


def _shape(array):
    return f"(1, {', '.join(map(str, array.shape))})"
