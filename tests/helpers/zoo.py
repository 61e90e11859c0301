"""Weights, inputs and data that are the same wherever they are made: by names and shapes."""

import zlib

import numpy as np


def weight(name, shape):
    """Returns random float32 weights of an array that PyTorch calls `name`."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    values = random.standard_normal(shape)
    if len(shape) < 2:  # biases, means, scales; near 1 for the scales
        return np.asarray(0.1 * values + (name.endswith("weight") or "gamma" in name), np.float32)
    fan_in = shape[0] if "c_" in name else np.prod(shape[1:])
    return (values / np.sqrt(fan_in)).astype(np.float32)


def inputs(shape, vocabulary=None):
    """Returns random pictures, or tokens where there is a vocabulary; the last text is short."""
    random = np.random.default_rng(0)
    if vocabulary is None:
        return random.standard_normal(shape).astype(np.float32)
    tokens = random.integers(1, vocabulary, shape).astype(np.int32)
    tokens[-1, shape[1] - 3 :] = 0
    return tokens


class RandomExamples:
    """Sixteen pictures or texts, with labels; a text without a label has its tokens as targets."""

    def __init__(self, shape, vocabulary=None, classes=7):
        self.inputs = inputs((16, *shape), vocabulary)
        self.labels = self.inputs if classes is None else np.arange(16, dtype=np.int32) % classes

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return self.inputs[index], self.labels[index]
