"""How fast networks of model/zoo/ are trained, compared with the same networks in Flax.

    python benchmarks/zoo_speed.py [NAME ...]

Both are compiled with the options that training has, and take steps of gradient descent in turn,
with the same inputs, in one process. ResNet is as in Flax's example of ImageNet; GPT-2 and BERT
have the layers of its examples lm1b and nlp_seq; the others are written with its layers likewise.
Prints the median of the ratios of the time, and of the processor's time, which other programs
disturb less.
"""

import functools
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import constant, truncated_normal

from model.zoo.bert import bert
from model.zoo.convnext import convnext_tiny
from model.zoo.efficientnet import (
    EFFICIENT_STAGES,
    MOBILE_STAGES,
    efficientnet_b0,
    efficientnet_lite0,
    mobilenet_v2,
)
from model.zoo.gpt2 import gpt2
from model.zoo.resnet import HE, resnet18, resnet50
from model.zoo.vit import vit_small
from training.common.trees import merge, named_leaves, split
from training.engine.compilation import FAST

ROUNDS = 15
SMALL = truncated_normal(0.02)
TEXT = {"vocabulary": 5000, "positions": 64, "features": 256, "depth": 4, "heads": 4}
Conv = functools.partial(nn.Conv, use_bias=False, kernel_init=HE)
Norm = functools.partial(nn.BatchNorm, use_running_average=False, momentum=0.9)
Dense = functools.partial(nn.Dense, kernel_init=SMALL)


class ResNet(nn.Module):
    """ResNet, as in Flax's example of ImageNet."""

    depths: tuple
    bottleneck: bool = False

    @nn.compact
    def __call__(self, x):
        """Returns logits, (batch, 1000), of (batch, height, width, channels)."""
        x = nn.relu(Norm()(Conv(64, (7, 7), (2, 2), 3)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, depth in enumerate(self.depths):
            for index in range(depth):
                x = self.block(x, 64 * 2**stage, 2 if stage and not index else 1)
        return nn.Dense(1000)(x.mean((1, 2)))

    def block(self, x, features, stride):
        """Adds to x what two or three convolutions make of it."""
        if self.bottleneck:
            y = nn.relu(Norm()(Conv(features, (1, 1))(x)))
            y = nn.relu(Norm()(Conv(features, (3, 3), (stride,) * 2, 1)(y)))
            y = Norm()(Conv(4 * features, (1, 1))(y))
        else:
            y = nn.relu(Norm()(Conv(features, (3, 3), (stride,) * 2, 1)(x)))
            y = Norm()(Conv(features, (3, 3), padding=1)(y))
        if x.shape != y.shape:
            x = Norm()(Conv(y.shape[-1], (1, 1), (stride,) * 2)(x))
        return nn.relu(x + y)


class EfficientNet(nn.Module):
    """MobileNetV2, EfficientNet-B0 and -Lite0."""

    stages: tuple
    squeeze: float
    activation: object

    @nn.compact
    def __call__(self, x):
        """Returns logits, (batch, 1000), of (batch, height, width, channels)."""
        x = self.activation(Norm()(Conv(32, (3, 3), (2, 2), 1)(x)))
        for depth, size, stride, expansion, features in self.stages:
            for one in (stride,) + (1,) * (depth - 1):
                x = self.block(x, features, size, one, expansion)
        x = self.activation(Norm()(Conv(1280, (1, 1))(x)))
        return nn.Dense(1000)(x.mean((1, 2)))

    def block(self, x, features, size, stride, expansion):
        """Returns what an inverted residual block makes of x."""
        wide, y = expansion * x.shape[-1], x
        if expansion != 1:
            y = self.activation(Norm()(Conv(wide, (1, 1))(y)))
        conv = Conv(wide, (size,) * 2, (stride,) * 2, size // 2, feature_group_count=wide)
        y = self.activation(Norm()(conv(y)))
        if self.squeeze:
            few = nn.Conv(int(self.squeeze * x.shape[-1]), (1, 1))
            share = self.activation(few(y.mean((1, 2), keepdims=True)))
            y = y * nn.sigmoid(nn.Conv(wide, (1, 1))(share))
        y = Norm()(Conv(features, (1, 1))(y))
        return x + y if x.shape == y.shape else y


class ConvNeXt(nn.Module):
    """ConvNeXt-T."""

    @nn.compact
    def __call__(self, x):
        """Returns logits, (batch, 1000), of (batch, height, width, channels)."""
        norm = functools.partial(nn.LayerNorm, epsilon=1e-6)
        conv = functools.partial(nn.Conv, kernel_init=SMALL)
        for stage, (depth, wide) in enumerate(zip((3, 3, 9, 3), (96, 192, 384, 768), strict=True)):
            patch = (2, 2) if stage else (4, 4)
            x = norm()(x) if stage else x
            x = conv(wide, patch, patch, "VALID")(x)
            x = x if stage else norm()(x)
            for block in range(depth):
                y = norm()(conv(wide, (7, 7), padding=3, feature_group_count=wide)(x))
                y = Dense(wide)(nn.gelu(Dense(4 * wide)(y), approximate=False))
                gamma = self.param(f"gamma{stage}_{block}", constant(1e-6), (wide,))
                x = x + gamma * y
        return Dense(1000)(norm()(x.mean((1, 2))))


class Transformer(nn.Module):
    """Blocks of attention and an MLP, normalised before each, or after, as in BERT."""

    depth: int
    heads: int
    after: bool = False
    exact: bool = True

    @nn.compact
    def __call__(self, x, mask=None):
        """Returns (batch, length, features) of the same."""
        for _ in range(self.depth):
            attend = nn.MultiHeadDotProductAttention(self.heads, kernel_init=SMALL)
            norms = [nn.LayerNorm(epsilon=1e-6), nn.LayerNorm(epsilon=1e-6)]
            x = self.add(x, functools.partial(attend, mask=mask), norms[0])
            x = self.add(x, self.mlp, norms[1])
        return x

    def add(self, x, function, norm):
        """Adds to x what a function makes of it."""
        return norm(x + function(x)) if self.after else x + function(norm(x))

    def mlp(self, x):
        """Returns (..., features) by a hidden layer of four times as many."""
        y = nn.gelu(Dense(4 * x.shape[-1])(x), approximate=not self.exact)
        return Dense(x.shape[-1])(y)


class ViT(nn.Module):
    """ViT-S/16."""

    @nn.compact
    def __call__(self, x):
        """Returns logits, (batch, 1000), of (batch, height, width, channels)."""
        x = nn.Conv(384, (16, 16), (16, 16), "VALID")(x)
        x = x.reshape(x.shape[0], -1, 384)
        token = self.param("token", SMALL, (1, 1, 384))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, 384)), x], 1)
        x = x + self.param("position", SMALL, (1, *x.shape[1:]))
        x = nn.LayerNorm(epsilon=1e-6)(Transformer(12, 6)(x))
        return Dense(1000)(x[:, 0])


class GPT2(nn.Module):
    """A decoder."""

    @nn.compact
    def __call__(self, x):
        """Returns logits, (batch, length, vocabulary), of tokens."""
        words = nn.Embed(TEXT["vocabulary"], TEXT["features"])
        place = nn.Embed(TEXT["positions"], TEXT["features"])(jnp.arange(x.shape[1]))
        mask = nn.make_causal_mask(x)
        x = Transformer(TEXT["depth"], TEXT["heads"], exact=False)(words(x) + place, mask)
        return words.attend(nn.LayerNorm()(x))


class BERT(nn.Module):
    """An encoder."""

    @nn.compact
    def __call__(self, x):
        """Returns logits, (batch, 2), of tokens."""
        wide = TEXT["features"]
        y = nn.Embed(TEXT["vocabulary"], wide)(x) + nn.Embed(2, wide)(jnp.zeros_like(x))
        y = nn.LayerNorm()(y + nn.Embed(TEXT["positions"], wide)(jnp.arange(x.shape[1])))
        mask = nn.make_attention_mask(jnp.ones_like(x), x != 0)
        y = Transformer(TEXT["depth"], TEXT["heads"], after=True)(y, mask)
        return Dense(2)(jnp.tanh(Dense(wide)(y[:, 0])))


NETWORKS = {  # ours, Flax's, the shape of inputs
    "resnet18": (resnet18, ResNet((2, 2, 2, 2)), (8, 3, 64, 64)),
    "resnet50": (resnet50, ResNet((3, 4, 6, 3), True), (8, 3, 64, 64)),
    "mobilenet_v2": (mobilenet_v2, EfficientNet(MOBILE_STAGES, 0, nn.relu6), (8, 3, 64, 64)),
    "efficientnet_b0": (
        efficientnet_b0, EfficientNet(EFFICIENT_STAGES, 0.25, nn.silu), (8, 3, 64, 64)
    ),
    "efficientnet_lite0": (
        efficientnet_lite0, EfficientNet(EFFICIENT_STAGES, 0, nn.relu6), (8, 3, 64, 64)
    ),
    "convnext_tiny": (convnext_tiny, ConvNeXt(), (4, 3, 64, 64)),
    "vit_small": (vit_small, ViT(), (4, 3, 96, 96)),
    "gpt2": (functools.partial(gpt2, **TEXT), GPT2(), (4, 64)),
    "bert": (functools.partial(bert, **TEXT), BERT(), (4, 64)),
}  # fmt: skip


def step_of(network):
    """Returns a compiled step of gradient descent of `network(trained, stats, x)`."""

    def loss(trained, stats, x, labels):
        logits, stats = network(trained, stats, x)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], -1).mean(), stats

    def step(trained, stats, x, labels):
        grads, stats = jax.grad(loss, has_aux=True)(trained, stats, x, labels)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, trained, grads), stats

    return jax.jit(step, compiler_options=FAST.get(jax.default_backend()))


def both(name):
    """Returns ({whose: (step, its state)}, inputs, labels) of a network."""
    ours, flax, shape = NETWORKS[name]
    if len(shape) == 4:
        x, labels = jax.random.normal(jax.random.key(0), shape), jnp.arange(shape[0])
    else:
        x = jax.random.randint(jax.random.key(0), shape, 1, TEXT["vocabulary"])
        labels = x if name == "gpt2" else x[:, 0] % 2

    def flip(x):
        return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x

    def call_ours(trained, stats, x):
        y, params = ours(x, params=merge(trained, stats), train=True)
        return y, split(params)[1]

    def call_flax(trained, stats, x):
        variables = {"params": trained, "batch_stats": stats}
        y, changed = flax.apply(variables, flip(x), mutable=["batch_stats"])
        return y, changed.get("batch_stats", {})

    state = split(ours(x, key=jax.random.key(0))[1])
    variables = flax.init(jax.random.key(0), flip(x))
    counts = [sum(one.size for one in named_leaves(tree).values() if one is not None)
              for tree in (state[0], variables["params"])]  # fmt: skip
    if counts[0] != counts[1]:
        raise ValueError(f"{name}: {counts[0]} parameters here, {counts[1]} in Flax")
    theirs = variables["params"], variables.get("batch_stats", {})
    steps = {"ours": (step_of(call_ours), state), "flax": (step_of(call_flax), theirs)}
    return steps, x, labels


def main(names):
    """Prints a line for each network."""
    for name in names or NETWORKS:
        steps, x, labels = both(name)
        times = {"ours": [], "flax": []}
        for turn in range(ROUNDS + 1):
            for whose, (step, state) in steps.items():
                begin = time.perf_counter(), time.process_time()
                jax.block_until_ready(step(*state, x, labels))
                if turn:  # the first compiles
                    ends = time.perf_counter(), time.process_time()
                    times[whose].append([b - a for a, b in zip(begin, ends, strict=True)])
        ratios = [
            statistics.median(one[kind] / other[kind]
                              for one, other in zip(*times.values(), strict=True))
            for kind in (0, 1)
        ]  # fmt: skip
        seconds = statistics.median(one[0] for one in times["ours"])
        print(f"{name:20} {x.shape!s:20} {seconds * 1e3:6.0f} ms, of Flax's {ratios[0]:.2f}, of "
              f"the processor's time {ratios[1]:.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
