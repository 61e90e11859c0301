"""Small data sets with labels, weights and sequences as users have them."""

import numpy as np

from model.modules import Layers, linear


class Points:
    """Points of 4 numbers around one of `classes` centres; `kind` says what the targets are."""

    def __init__(self, count=48, seed=0, kind="labels", classes=3):
        random = np.random.default_rng(seed)
        self.y = random.integers(0, classes, count).astype(np.int32)
        self.x = random.normal(size=(count, 4)).astype(np.float32) + self.y[:, None]
        self.many = (random.random((count, classes)) < 0.3).astype(np.int32)
        self.kind, self.count = kind, classes

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        make = {
            "labels": lambda y: y,
            "one-hot": lambda y: np.eye(self.count, dtype=np.float32)[y],
            "many": lambda y: self.many[index],
            "many floats": lambda y: self.many[index].astype(np.float32),
            "ignored": lambda y: np.int32(-100 if index % 4 == 0 else y),
            "byte": np.uint8,
            "from one": lambda y: np.int32(y + 1),
            "text": lambda y: f"class {y}",
        }[self.kind]
        return self.x[index], make(self.y[index])


class Sequences(Points):
    """Sequences of 3 to 22 points, with a label for each position."""

    def __getitem__(self, index):
        length = 3 + index * 7 % 20
        return np.full((length, 4), self.y[index], np.float32), np.full(length, self.y[index])


class Interrupted(Points):
    """The same points, and a batch of 8 more after the first 8, to be given the weight 0."""

    def __init__(self, **named):
        super().__init__(**named)
        self.x = np.concatenate([self.x[:8], np.full((8, 4), 1e30, np.float32), self.x[8:]])
        self.y = np.concatenate([self.y[:8], np.full(8, -100, np.int32), self.y[8:]])


def ignoring(samples):
    """Gives what is labelled -100 the weight 0."""
    inputs, targets = map(np.stack, zip(*samples, strict=True))
    return {"inputs": inputs, "targets": targets, "weight": (targets != -100).astype(np.float32)}


def padded(samples, multiple=1):
    """Pads sequences to the longest of the batch, or a multiple; padding has the weight 0."""
    longest = -(-max(len(inputs) for inputs, _ in samples) // multiple) * multiple

    def pad(array):
        return np.pad(array, [(0, longest - len(array))] + [(0, 0)] * (array.ndim - 1))

    return {
        "inputs": np.stack([pad(inputs) for inputs, _ in samples]),
        "targets": np.stack([pad(targets) for _, targets in samples]),
        "weight": np.stack([pad(np.ones(len(inputs), np.float32)) for inputs, _ in samples]),
    }


def bucketed(samples):
    """Pads sequences to the next multiple of 8."""
    return padded(samples, 8)


def of_positions(x, *, params=None, key=None, train=False):
    """A network with outputs for each position."""
    layer = Layers(params, key, train)
    return layer("out", linear, x, 3), layer.params


def small_config(folder, dataset="Points", collate=None, **args):
    """A config that trains on one of the data sets above, as a dict."""
    loader = {
        "dataset": {"name": f"tests.helpers.labelled:{dataset}", "args": args},
        "batch_size": 8,
    }
    if collate:
        loader["collate"] = {"name": f"tests.helpers.labelled:{collate}"}
    return {
        "title": "Labelled",
        "model": {"name": "mlp", "args": {"feat_dims": [8], "classes": 3}},
        "data_loader": {
            split: {"name": "DataLoader", "args": loader} for split in ("train", "test")
        },
        "training": {
            "loss": "cross_entropy",
            "metrics": ["accuracy", "macro_f1"],
            "epochs": 2,
            "optimizer": {"name": "adamw", "args": {"learning_rate": 0.01}},
            "save_dir": str(folder / "saved"),
        },
    }


def both(setting):
    """A setting of both loaders, as overrides."""
    return [f"data_loader.{split}.args.{setting}" for split in ("train", "test")]
