"""A data set with a fault in one place, and functions that fail, for the tests."""

import json
import os

import jax.numpy as jnp
import numpy as np

from data_loader.dataloader import DataLoader
from training.metrics import aggregated

CLASSES = 3


class Points:
    """Points around the centre of their class.

    Args:
        split: "train" or "test"; each has its own points.
        count: number of points.
        kind: of targets: "label", or "values", a float for each class.
        faults: [[field, row, value], ...]: "inputs" or "targets" of the row are that value, a text
            that NumPy reads as a float ("nan"), or "text", "error" (reading it fails).
        env: faults only while this environment variable is set.
        labels: False hides the labels.
        classes: their names, or None.
        scale, rank, dtype: of the inputs.
    """

    def __init__(self, split, count=40, kind="label", faults=(), env="", labels=True,
                 classes=None, scale=1.0, rank=1, dtype="float32"):  # fmt: skip
        random = np.random.default_rng(["train", "test"].index(split))
        self.kind, self.faults, self.env = kind, faults, env
        numbers = random.integers(0, CLASSES, count).astype(np.int32)
        self._labels = numbers
        points = random.normal(size=(count, 4)) + numbers[:, None]
        self.points = (scale * points).astype(dtype).reshape(count, *[1] * (rank - 1), 4)
        if labels:
            self.labels = numbers
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        inputs, targets = self.points[index], self._labels[index]
        if self.kind == "values":
            targets = np.float32(np.eye(CLASSES)[targets])
        for field, row, value in self.faults if not self.env or self.env in os.environ else ():
            if row == index and value == "error":
                raise OSError(f"example {row} cannot be read")
            if row == index and value == "text":
                return (inputs, "n/a") if field == "targets" else (["n/a"] * 4, targets)
            if row == index:
                changed = np.array(inputs if field == "inputs" else targets)
                changed.flat[-1] = float(value)
                inputs, targets = (changed, targets) if field == "inputs" else (inputs, changed)
        return inputs, targets


@aggregated(lambda total, weight: float("nan"))
def undefined(outputs, targets):
    """A metric that has no value, as the area under a curve of a single class."""
    return jnp.ones(len(targets))


def reciprocal(outputs, targets):
    """A metric that is infinite where the last class is right."""
    return 1.0 / jnp.asarray(targets != CLASSES - 1, jnp.float32)


def _fail(total, weight):
    return {}[weight] if os.environ.get("FAULT") == str(weight) else 1.0


@aggregated(_fail)
def failing(outputs, targets):
    """A metric whose result over as many examples as FAULT says raises."""
    return jnp.ones(len(targets))


def put_faults(config, split, *found, **args):
    """Gives the Points of a config such faults, and other arguments."""
    config["data_loader"][split]["args"]["dataset"]["args"] |= {"faults": found, **args}


def strict_lines(folder):
    """The lines of metrics.jsonl, read by a JSON that has no NaN."""

    def refuse(word):
        raise AssertionError(word)

    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def held_out(config):
    """The examples of a config's Points that are held out for validation."""
    args = config["data_loader"]["train"]["args"]
    loader = DataLoader(Points(**args["dataset"]["args"]), 8, validation_split=4)
    return loader.validation().batch_indices(1, 0)[:4].tolist()
