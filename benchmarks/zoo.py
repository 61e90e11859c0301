"""Imports networks of full size from their originals' names, and compares ResNet-18 with Flax's.

    python tests/fixtures/zoo/make.py --full FOLDER     # where PyTorch is
    python benchmarks/zoo.py FOLDER [NAME ...]
    python benchmarks/zoo.py speed

The first prints a line for each network: its parameters, the largest error as a share of the
largest output, the seconds to import its file, and those over the seconds to read the file.
The second prints the times of training steps of ResNet-18 over those of the same network in Flax
Linen, taken in turn.
"""

import functools
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from model.zoo.resnet import HE, resnet18
from training.common.trees import named_leaves
from training.config import Named, Pretrained
from training.engine.compilation import FAST
from training.engine.pretrained import fill, read_weights
from utils import resolve

FUNCTIONS = {  # of each file; timm's ViT without a class token has 16 heads
    "resnet18": "resnet:resnet18", "resnet34": "resnet:resnet34", "resnet50": "resnet:resnet50",
    "mobilenet_v2": "efficientnet:mobilenet_v2", "efficientnet_b0": "efficientnet:efficientnet_b0",
    "efficientnet_lite0": "efficientnet:efficientnet_lite0",
    "convnext_tiny": "convnext:convnext_tiny", "vit_small": "vit:vit_small",
    "vit_base": "vit:vit_base", "vit_base_gap": "vit:vit", "gpt2": "gpt2:gpt2",
    "bert": "bert:bert",
}  # fmt: skip
ROUNDS, BATCH, SIZE = 15, 8, 64


def table(folder, names):
    """Prints a line for each network of a folder."""
    for name in names or FUNCTIONS:
        function = FUNCTIONS[name]
        path = folder / f"{name}.safetensors"
        begin = time.perf_counter()
        size = len(path.read_bytes())
        read = time.perf_counter() - begin
        model = Named(name=f"model.zoo.{function}")
        network = resolve(model.name, [], "benchmark")
        if name == "vit_base_gap":
            network = functools.partial(network, heads=16, token=False)
        proof = np.load(folder / f"{name}.npz")
        x, wanted = proof["inputs"], proof["outputs"]
        _, template = jax.eval_shape(lambda x, f=network: f(x, key=jax.random.key(0)), x)
        begin = time.perf_counter()
        params = fill(template, read_weights(model, Pretrained(path=str(path)), template))
        params = jax.block_until_ready(params)
        seconds = time.perf_counter() - begin
        y, _ = jax.jit(lambda params, x, f=network: f(x, params=params))(params, x)
        sizes = {key: one.size for key, one in named_leaves(params).items() if "stats" not in key}
        error = np.abs(y - wanted).max() / np.abs(wanted).max()
        same = (y.argmax(-1) == wanted.argmax(-1)).mean()
        print(f"{name:20} {sum(sizes.values()):>12,} {error:8.1e} {same:5.0%} {size / 1e6:7.1f} MB "
              f"{seconds:6.2f} s {seconds / read:6.1f}", flush=True)  # fmt: skip


class Block(linen.Module):
    """A basic block, as in Flax's example of ImageNet."""

    features: int
    stride: int

    @linen.compact
    def __call__(self, x):
        """Returns (batch, height, width, features)."""
        conv = functools.partial(linen.Conv, self.features, use_bias=False, kernel_init=HE)
        norm = functools.partial(linen.BatchNorm, use_running_average=False, momentum=0.9)
        y = conv((3, 3), (self.stride,) * 2, 1)(x)
        y = linen.relu(norm()(y))
        y = norm()(conv((3, 3), padding=1)(y))
        if x.shape != y.shape:
            x = norm()(conv((1, 1), (self.stride,) * 2)(x))
        return linen.relu(x + y)


class ResNet18(linen.Module):
    """ResNet-18, as in Flax's example of ImageNet."""

    @linen.compact
    def __call__(self, x):
        """Returns logits, (batch, 1000), of (batch, height, width, channels)."""
        x = linen.Conv(64, (7, 7), (2, 2), 3, use_bias=False, kernel_init=HE)(x)
        x = linen.relu(linen.BatchNorm(use_running_average=False, momentum=0.9)(x))
        x = linen.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage in range(4):
            for index in range(2):
                x = Block(64 * 2**stage, 2 if stage and not index else 1)(x)
        return linen.Dense(1000)(x.mean((1, 2)))


def ours(trained, stats, x, labels):
    """Returns the loss, and the running statistics."""
    from training.common.trees import merge, split

    logits, params = resnet18(x, params=merge(trained, stats), train=True)
    return loss_of(logits, labels), split(params)[1]


def flaxs(trained, stats, x, labels):
    """The same of the network in Flax."""
    variables = {"params": trained, "batch_stats": stats}
    logits, changed = ResNet18().apply(variables, x.transpose(0, 2, 3, 1), mutable=["batch_stats"])
    return loss_of(logits, labels), changed["batch_stats"]


def loss_of(logits, labels):
    """Returns the mean cross-entropy."""
    return -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels].mean()


def step_of(loss, options):
    """Returns a compiled step of gradient descent."""

    def step(trained, stats, x, labels):
        grads, stats = jax.grad(loss, has_aux=True)(trained, stats, x, labels)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, trained, grads), stats

    return jax.jit(step, compiler_options=options)


def speed():
    """Prints the times of our steps over those of Flax's."""
    from training.common.trees import split

    x = jax.random.normal(jax.random.key(0), (BATCH, 3, SIZE, SIZE))
    labels = jnp.arange(BATCH)
    _, params = resnet18(x, key=jax.random.key(0))
    variables = ResNet18().init(jax.random.key(0), x.transpose(0, 2, 3, 1))
    states = {"ours": split(params), "flax": (variables["params"], variables["batch_stats"])}
    for label, options in (
        ("training's options", FAST.get(jax.default_backend())),
        ("XLA's own", None),
    ):
        steps = {"ours": step_of(ours, options), "flax": step_of(flaxs, options)}
        times = {"ours": [], "flax": []}
        for turn in range(ROUNDS + 1):
            for name, step in steps.items():
                begin = time.perf_counter()
                jax.block_until_ready(step(*states[name], x, labels))
                if turn:
                    times[name].append(time.perf_counter() - begin)
        ratio = statistics.median(a / b for a, b in zip(times["ours"], times["flax"], strict=True))
        ours_ms = statistics.median(times["ours"]) * 1e3
        what = f"ResNet-18, {BATCH} pictures of {SIZE} x {SIZE}, {label}"
        print(f"{what}: ours {ours_ms:.0f} ms, {ratio:.2f} of Flax's", flush=True)


if __name__ == "__main__":
    speed() if sys.argv[1:] == ["speed"] else table(Path(sys.argv[1]), sys.argv[2:])
