"""Weights, inputs and data that are the same wherever they are made: by names and shapes."""

import zlib

import numpy as np

FULL = {  # networks of full size, and their arguments; timm's ViT without class token has 16 heads
    "resnet18": ("resnet:resnet18", {}),
    "resnet34": ("resnet:resnet34", {}),
    "resnet50": ("resnet:resnet50", {}),
    "mobilenet_v2": ("efficientnet:mobilenet_v2", {}),
    "efficientnet_b0": ("efficientnet:efficientnet_b0", {}),
    "efficientnet_lite0": ("efficientnet:efficientnet_lite0", {}),
    "convnext_tiny": ("convnext:convnext_tiny", {}),
    "vit_small": ("vit:vit_small", {}),
    "vit_base": ("vit:vit_base", {}),
    "vit_base_gap": ("vit:vit", {"heads": 16, "token": False}),
    "gpt2": ("gpt2:gpt2", {}),
    "bert": ("bert:bert", {}),
}


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


class RandomPixels(RandomExamples):
    """Sixteen pictures of pixels from 0 to 255, with labels."""

    def __init__(self):
        super().__init__((3, 32, 32))
        self.inputs = np.random.default_rng(0).integers(0, 256, self.inputs.shape, np.uint8)
