"""The networks of benchmarks/peers.py in Flax NNX with optax, trained as Flax's own tutorial does.

python of_flax.py NETWORK
"""

import sys
import time
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import LEARNING_RATE, WEIGHT_DECAY, batches, serve, training_set
from flax import nnx


class ConvNextBlock(nnx.Module):
    """The block of the sample network."""

    def __init__(self, features, rngs):
        depthwise = {"feature_group_count": features, "use_bias": False, "rngs": rngs}
        self.depthwise = nnx.Conv(features, features, (7, 7), **depthwise)
        self.norm = nnx.LayerNorm(features, epsilon=1e-5, rngs=rngs)
        self.expand = nnx.Conv(features, 2 * features, (1, 1), use_bias=False, rngs=rngs)
        self.project = nnx.Conv(2 * features, features, (1, 1), use_bias=False, rngs=rngs)

    def __call__(self, x):
        return x + self.project(nnx.gelu(self.expand(self.norm(self.depthwise(x)))))


class Sample(nnx.Module):
    """The sample network."""

    def __init__(self, rngs, features=(8, 16, 32)):
        def cut(before, after, size):
            settings = {"strides": size, "padding": "VALID", "use_bias": False, "rngs": rngs}
            return nnx.Conv(before, after, (size, size), **settings)

        self.stem = cut(1, features[0], 4)
        self.stem_norm = nnx.LayerNorm(features[0], epsilon=1e-5, rngs=rngs)
        self.stages = nnx.List([ConvNextBlock(size, rngs) for size in features])
        pairs = list(pairwise(features))
        self.norms = nnx.List([nnx.LayerNorm(a, epsilon=1e-5, rngs=rngs) for a, _ in pairs])
        self.downs = nnx.List([cut(before, after, 2) for before, after in pairs])
        self.norm = nnx.LayerNorm(features[-1], epsilon=1e-5, rngs=rngs)
        self.hidden = nnx.Linear(features[-1], 64, rngs=rngs)
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = self.stages[0](self.stem_norm(self.stem(x)))
        for norm, down, stage in zip(self.norms, self.downs, list(self.stages)[1:], strict=True):
            x = stage(down(norm(x)))
        return self.head(nnx.gelu(self.hidden(self.norm(x.mean((1, 2))))))


class Lenet(nnx.Module):
    """The network of pytorch-template."""

    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 10, (5, 5), padding="VALID", rngs=rngs)
        self.conv2 = nnx.Conv(10, 20, (5, 5), padding="VALID", rngs=rngs)
        self.drop_channels = nnx.Dropout(0.5, broadcast_dims=(1, 2), rngs=rngs)
        self.hidden = nnx.Linear(320, 50, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(50, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(nnx.max_pool(self.conv1(x), (2, 2), strides=(2, 2)))
        x = self.drop_channels(self.conv2(x))
        x = nnx.relu(nnx.max_pool(x, (2, 2), strides=(2, 2)))
        x = nnx.relu(self.hidden(x.reshape(len(x), -1)))
        return self.head(self.drop(x))


class TransformerBlock(nnx.Module):
    """The block of the ViT."""

    def __init__(self, features, heads, rngs):
        self.attention_norm = nnx.LayerNorm(features, epsilon=1e-5, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, features, decode=False, rngs=rngs)
        self.norm = nnx.LayerNorm(features, epsilon=1e-5, rngs=rngs)
        self.expand = nnx.Linear(features, 4 * features, rngs=rngs)
        self.project = nnx.Linear(4 * features, features, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.project(nnx.gelu(self.expand(self.norm(x))))


class Vit(nnx.Module):
    """The small Vision Transformer of model/model.py."""

    def __init__(self, rngs, features=64, heads=4, depth=4, patch=7):
        settings = {"strides": patch, "padding": "VALID", "rngs": rngs}
        self.patches = nnx.Conv(1, features, (patch, patch), **settings)
        shape = ((28 // patch) ** 2, features)
        self.position = nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))
        self.blocks = nnx.List([TransformerBlock(features, heads, rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(features, epsilon=1e-5, rngs=rngs)
        self.head = nnx.Linear(features, 10, rngs=rngs)

    def __call__(self, x):
        x = self.patches(x)
        x = x.reshape(len(x), -1, x.shape[-1]) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class Mlp(nnx.Module):
    """The fully connected network of model/model.py."""

    def __init__(self, rngs):
        self.hidden0 = nnx.Linear(784, 128, rngs=rngs)
        self.hidden1 = nnx.Linear(128, 64, rngs=rngs)
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.gelu(self.hidden0(x.reshape(len(x), -1)))
        return self.head(nnx.gelu(self.hidden1(x)))


@nnx.jit
def train_step(model, optimizer, metrics, inputs, targets):
    """Takes one step, changing its arguments."""

    def loss_of(model):
        logits = model(inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return losses.mean(), logits

    (loss, logits), grads = nnx.value_and_grad(loss_of, has_aux=True)(model)
    metrics.update(loss=loss, logits=logits, labels=targets)
    optimizer.update(model, grads)


def main():
    """Serves epochs of a network."""
    (name,) = sys.argv[1:]
    model = {"sample": Sample, "lenet": Lenet, "vit": Vit, "mlp": Mlp}[name](rngs=nnx.Rngs(0))
    transformation = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    optimizer = nnx.Optimizer(model, transformation, wrt=nnx.Param)
    metrics = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss"))
    images, labels = training_set()
    images, labels, rng = images[..., None], labels.astype(np.int32), np.random.default_rng(0)
    model.train()

    def epoch():
        began = time.perf_counter()
        for inputs, targets in batches(images, labels, rng):
            train_step(model, optimizer, metrics, jnp.asarray(inputs), jnp.asarray(targets))
        loss = metrics.compute()["loss"].item()
        metrics.reset()
        return time.perf_counter() - began, loss

    counted = jax.tree.leaves(nnx.state(model, nnx.Param))
    serve(sum(leaf.size for leaf in counted), epoch)


if __name__ == "__main__":
    main()
