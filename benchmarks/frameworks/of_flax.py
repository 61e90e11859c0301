"""The networks of benchmarks/peers.py in Flax NNX with optax, trained as Flax's own tutorial does.

python of_flax.py NETWORK [--device cpu] [--dtype float32]
"""

from functools import partial
from itertools import pairwise

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

OPTIONS = common.parse_options()
DTYPE = getattr(jnp, OPTIONS.dtype)  # of the arithmetic; parameters are float32
Conv, Linear = partial(nnx.Conv, dtype=DTYPE), partial(nnx.Linear, dtype=DTYPE)
LayerNorm = partial(nnx.LayerNorm, epsilon=1e-5, dtype=DTYPE)
BatchNorm = partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5, dtype=DTYPE)


class ConvNextBlock(nnx.Module):
    """The block of the sample network."""

    def __init__(self, features, rngs):
        depthwise = {"feature_group_count": features, "use_bias": False, "rngs": rngs}
        self.depthwise = Conv(features, features, (7, 7), **depthwise)
        self.norm = LayerNorm(features, rngs=rngs)
        self.expand = Conv(features, 2 * features, (1, 1), use_bias=False, rngs=rngs)
        self.project = Conv(2 * features, features, (1, 1), use_bias=False, rngs=rngs)

    def __call__(self, x):
        return x + self.project(nnx.gelu(self.expand(self.norm(self.depthwise(x)))))


class Sample(nnx.Module):
    """The sample network."""

    def __init__(self, rngs, features=(8, 16, 32)):
        def cut(before, after, size):
            settings = {"strides": size, "padding": "VALID", "use_bias": False, "rngs": rngs}
            return Conv(before, after, (size, size), **settings)

        self.stem = cut(1, features[0], 4)
        self.stem_norm = LayerNorm(features[0], rngs=rngs)
        self.stages = nnx.List([ConvNextBlock(size, rngs) for size in features])
        pairs = list(pairwise(features))
        self.norms = nnx.List([LayerNorm(a, rngs=rngs) for a, _ in pairs])
        self.downs = nnx.List([cut(before, after, 2) for before, after in pairs])
        self.norm = LayerNorm(features[-1], rngs=rngs)
        self.hidden = Linear(features[-1], 64, rngs=rngs)
        self.head = Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = self.stages[0](self.stem_norm(self.stem(x)))
        for norm, down, stage in zip(self.norms, self.downs, list(self.stages)[1:], strict=True):
            x = stage(down(norm(x)))
        return self.head(nnx.gelu(self.hidden(self.norm(x.mean((1, 2))))))


class Lenet(nnx.Module):
    """The network of pytorch-template."""

    def __init__(self, rngs):
        self.conv1 = Conv(1, 10, (5, 5), padding="VALID", rngs=rngs)
        self.conv2 = Conv(10, 20, (5, 5), padding="VALID", rngs=rngs)
        self.drop_channels = nnx.Dropout(0.5, broadcast_dims=(1, 2), rngs=rngs)
        self.hidden = Linear(320, 50, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = Linear(50, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(nnx.max_pool(self.conv1(x), (2, 2), strides=(2, 2)))
        x = self.drop_channels(self.conv2(x))
        x = nnx.relu(nnx.max_pool(x, (2, 2), strides=(2, 2)))
        x = nnx.relu(self.hidden(x.reshape(len(x), -1)))
        return self.head(self.drop(x))


class TransformerBlock(nnx.Module):
    """The block of the ViT."""

    def __init__(self, features, heads, rngs):
        self.attention_norm = LayerNorm(features, rngs=rngs)
        settings = {"decode": False, "dtype": DTYPE, "rngs": rngs}
        self.attention = nnx.MultiHeadAttention(heads, features, **settings)
        self.norm = LayerNorm(features, rngs=rngs)
        self.expand = Linear(features, 4 * features, rngs=rngs)
        self.project = Linear(4 * features, features, rngs=rngs)

    def __call__(self, x, mask=None):
        x = x + self.attention(self.attention_norm(x), mask=mask)
        return x + self.project(nnx.gelu(self.expand(self.norm(x))))


class Vit(nnx.Module):
    """The small Vision Transformer of model/model.py."""

    def __init__(self, rngs, features=64, heads=4, depth=4, patch=7):
        settings = {"strides": patch, "padding": "VALID", "rngs": rngs}
        self.patches = Conv(1, features, (patch, patch), **settings)
        shape = ((28 // patch) ** 2, features)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))
        self.blocks = nnx.List([TransformerBlock(features, heads, rngs) for _ in range(depth)])
        self.norm = LayerNorm(features, rngs=rngs)
        self.head = Linear(features, 10, rngs=rngs)

    def __call__(self, x):
        x = self.patches(x)
        x = x.reshape(len(x), -1, x.shape[-1]) + self.position.astype(x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class Mlp(nnx.Module):
    """The fully connected network of model/model.py."""

    def __init__(self, rngs):
        self.hidden0 = Linear(784, 128, rngs=rngs)
        self.hidden1 = Linear(128, 64, rngs=rngs)
        self.head = Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.gelu(self.hidden0(x.reshape(len(x), -1)))
        return self.head(nnx.gelu(self.hidden1(x)))


class BasicBlock(nnx.Module):
    """The block of ResNet-18."""

    def __init__(self, before, features, stride, rngs):
        settings = {"padding": 1, "use_bias": False, "rngs": rngs}
        self.conv1 = Conv(before, features, (3, 3), strides=stride, **settings)
        self.conv2 = Conv(features, features, (3, 3), **settings)
        self.norm1, self.norm2 = BatchNorm(features, rngs=rngs), BatchNorm(features, rngs=rngs)
        self.shortcut = nnx.data(None)
        if stride > 1:
            cut = Conv(before, features, (1, 1), strides=stride, use_bias=False, rngs=rngs)
            self.shortcut = nnx.data(nnx.Sequential(cut, BatchNorm(features, rngs=rngs)))

    def __call__(self, x):
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return nnx.relu(y + (self.shortcut(x) if self.shortcut else x))


class ResNet18(nnx.Module):
    """ResNet-18 for pictures of 32 x 32."""

    def __init__(self, rngs):
        self.stem = Conv(3, 64, (3, 3), use_bias=False, rngs=rngs)
        self.norm = BatchNorm(64, rngs=rngs)
        sizes = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
        blocks = [
            BasicBlock(*(size if first else (size[1], size[1], 1)), rngs)
            for size in sizes
            for first in (True, False)
        ]
        self.blocks = nnx.List(blocks)
        self.head = Linear(512, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


class Gpt(nnx.Module):
    """The network of examples/text, of an ordinary size."""

    def __init__(self, rngs, features=384, heads=6, depth=6):
        codes, context = common.CODES, common.CONTEXT
        self.characters = nnx.Embed(codes, features, dtype=DTYPE, rngs=rngs)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), (context, features)))
        self.blocks = nnx.List([TransformerBlock(features, heads, rngs) for _ in range(depth)])
        self.norm = LayerNorm(features, rngs=rngs)
        self.head = Linear(features, codes, rngs=rngs)

    def __call__(self, x):
        mask = nnx.make_causal_mask(x)
        x = self.characters(x) + self.position.astype(DTYPE)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


NETWORKS = {
    "sample": Sample, "lenet": Lenet, "vit": Vit, "mlp": Mlp, "resnet18": ResNet18, "gpt": Gpt,
}  # fmt: skip


@nnx.jit
def train_step(model, optimizer, metrics, inputs, targets):
    """Takes one step, changing its arguments."""

    def loss_of(model):
        logits = model(inputs).astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return losses.mean(), logits

    (loss, logits), grads = nnx.value_and_grad(loss_of, has_aux=True)(model)
    metrics.update(loss=loss, logits=logits, labels=targets)
    optimizer.update(model, grads)


def main(options):
    """Serves epochs of a network; on an accelerator the data stay there."""
    model = NETWORKS[options.network](rngs=nnx.Rngs(0))
    transformation = optax.adamw(common.LEARNING_RATE, weight_decay=common.WEIGHT_DECAY)
    optimizer = nnx.Optimizer(model, transformation, wrt=nnx.Param)
    metrics = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss"))
    inputs, targets = common.training_set(options)
    targets, rng = targets.astype(np.int32), np.random.default_rng(0)
    if options.device != "cpu":
        inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)
    model.train()
    step = nnx.cached_partial(train_step, model, optimizer, metrics)  # as its guide advises

    def epoch():
        for batch in common.batches(inputs, targets, options.batch, rng):
            step(*map(jnp.asarray, batch))
        loss = metrics.compute()["loss"].item()
        metrics.reset()
        return loss

    counted = jax.tree.leaves(nnx.state(model, nnx.Param))
    common.serve(sum(leaf.size for leaf in counted), epoch)


if __name__ == "__main__":
    main(OPTIONS)
