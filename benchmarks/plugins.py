"""Measures the overhead for networks of other libraries: an epoch here over one in their own loop.

    python benchmarks/plugins.py [nnx linen haiku equinox] [--rounds 7] [--examples 15000]

The networks are those of examples/libraries. Each is trained by train.py's loop, and by the loop in
the library's own documentation, written out below: with the same initial weights, optimizer,
batches and arithmetic; the library's loop gets normalised images, shuffled in memory, and logs
nothing. Epochs of the two are timed in turn; the result is the median ratio of such pairs. Wanted:
at most 1.05.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax

import utils
from benchmarks import loop
from training.config import read_config
from training.distributed.preemption import StopSignal
from training.engine.build import build
from training.engine.initialize import first_batch
from training.engine.progress import Progress

EXAMPLES = utils.ROOT / "examples" / "libraries"


def main():
    """Prints the time of both in each round, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="*", default=[*LOOPS], metavar="LIBRARY")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--examples", type=int, default=15000, help="training examples an epoch")
    options = parser.parse_args()
    for library in options.libraries:
        with tempfile.TemporaryDirectory() as folder, StopSignal() as stop:
            ratios = compare(library, options, Path(folder), stop)
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{library}: median {statistics.median(ratios):.3f} ({spread})", flush=True)


def compare(library, options, folder, stop):
    """Returns for each round the time of an epoch here over that of the library's own loop."""
    path = EXAMPLES / f"{library}_cnn.json"
    held_out = 60000 - options.examples
    config = read_config(path, [f"data_loader.train.args.validation_split={held_out}"])
    experiment = build(config, path)
    utils.set_up_logging(folder)
    logging.getLogger("main").handlers[0].setStream(open(folder / "console", "w"))  # noqa: SIM115
    state = experiment.init(first_batch(experiment))
    own, step = LOOPS[library](jax.tree.map(jnp.copy, state.params), optimizer_of(experiment))
    images, labels = normalized(experiment)
    size, ratios = experiment.loaders["train"].batch_size, []
    for number in range(options.rounds + 1):
        state, ours = loop.loop_epoch(config, experiment, state, folder, stop, Progress())
        own, theirs = own_epoch(own, step, images, labels, size)
        if number:  # the first compiles
            ratios.append(ours / theirs)
            print(f"  round {number}: here {ours:.3f} s, its own {theirs:.3f} s, {ratios[-1]:.3f}")
    return ratios


def optimizer_of(experiment):
    """Returns the run's optimizer."""
    (group,) = experiment.groups.values()
    return group.optimizer


def normalized(experiment):
    """Returns the training images as float32, normalised as in the config, and their labels."""
    batches = list(experiment.loaders["train"].batches(epoch=1))
    images = np.concatenate([batch["inputs"] for batch in batches]).astype(np.float32)
    labels = np.concatenate([batch["targets"] for batch in batches])
    return (images / 255 - 0.1307) / 0.3081, labels


def own_epoch(state, step, images, labels, size):
    """Returns the state and the seconds of an epoch as in the libraries' documentation."""
    order = np.random.default_rng(0).permutation(len(images))
    keys = list(jax.random.split(jax.random.key(0), len(images) // size))
    began = time.perf_counter()
    for number, key in enumerate(keys):
        batch = order[number * size : (number + 1) * size]
        state, _ = step(state, images[batch], labels[batch], key)
    return jax.block_until_ready(state), time.perf_counter() - began


# Each library's own loop: (params of the example, optimizer) -> (state, step), and
# step(state, images, labels, key) -> (state, loss).


def nnx_loop(params, optimizer):
    """Returns the loop of Flax NNX's MNIST tutorial, including its running metrics."""
    from flax import nnx

    from examples.libraries.nnx_cnn import CNN

    model = CNN(16, 10, rngs=nnx.Rngs(0))
    nnx.update(model, params["weights"], params["stats"])
    average = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss"))
    state = model, nnx.Optimizer(model, optimizer, wrt=nnx.Param), average

    def loss_of(model, images, labels, rngs):
        logits = model(jnp.moveaxis(images, 1, -1), rngs)
        return mean_cross_entropy(logits, labels), logits

    @nnx.jit
    def train_step(model, optimizer, metrics, images, labels, key):
        gradient = nnx.value_and_grad(loss_of, has_aux=True)
        (loss, logits), grads = gradient(model, images, labels, nnx.Rngs(key))
        metrics.update(loss=loss, logits=logits, labels=labels)
        optimizer.update(model, grads)
        return loss

    def step(state, images, labels, key):
        return state, train_step(*state, images, labels, key)

    model.train()
    return state, step


def linen_loop(params, optimizer):
    """Returns the loop of Flax Linen's guides: a TrainState that includes batch statistics."""
    from typing import Any

    from flax.training.train_state import TrainState

    from examples.libraries.linen_cnn import CNN

    class State(TrainState):
        batch_stats: Any

    model = CNN(16, 10)
    state = State.create(
        apply_fn=model.apply, params=params["weights"], tx=optimizer, batch_stats=params["stats"]
    )

    @jax.jit
    def step(state, images, labels, key):
        def loss_of(weights):
            logits, updated = state.apply_fn(
                {"params": weights, "batch_stats": state.batch_stats},
                jnp.moveaxis(images, 1, -1),
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
            return mean_cross_entropy(logits, labels), (logits, updated)

        (loss, (logits, updated)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        state = state.apply_gradients(grads=grads, batch_stats=updated["batch_stats"])
        return state, {"loss": loss, "accuracy": jnp.mean(logits.argmax(-1) == labels)}

    return state, step


def haiku_loop(params, optimizer):
    """Returns the loop of Haiku's MNIST and ImageNet examples."""
    import haiku as hk

    from examples.libraries.haiku_cnn import logits

    network = hk.transform_with_state(logits)

    @jax.jit
    def step(state, images, labels, key):
        weights, stats, moments = state

        def loss_of(weights):
            images_last = jnp.moveaxis(images, 1, -1)
            y, updated = network.apply(weights, stats, key, images_last, 16, 10, True)
            return mean_cross_entropy(y, labels), updated

        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(weights)
        updates, moments = optimizer.update(grads, moments, weights)
        return (optax.apply_updates(weights, updates), stats, moments), loss

    return (params["weights"], params["stats"], optimizer.init(params["weights"])), step


def equinox_loop(params, optimizer):
    """Returns the loop of Equinox's example with stateful layers."""
    import equinox as eqx

    from examples.libraries.equinox_cnn import CNN

    model, _ = eqx.nn.make_with_state(CNN)(16, 10, jax.random.key(0))
    model = eqx.combine(params["weights"], model)

    @eqx.filter_value_and_grad(has_aux=True)
    def loss_of(model, state, images, labels, keys):
        batched = jax.vmap(model, (0, None, 0), (0, None), axis_name="batch")
        logits, state = batched(images, state, keys)
        return mean_cross_entropy(logits, labels), state

    @eqx.filter_jit
    def step(state, images, labels, key):
        model, stats, moments = state
        keys = jax.random.split(key, len(images))
        (loss, stats), grads = loss_of(model, stats, images, labels, keys)
        weights = eqx.filter(model, eqx.is_inexact_array)
        updates, moments = optimizer.update(grads, moments, weights)
        return (eqx.apply_updates(model, updates), stats, moments), loss

    moments = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    return (model, params["stats"], moments), step


LOOPS = {"nnx": nnx_loop, "linen": linen_loop, "haiku": haiku_loop, "equinox": equinox_loop}


def mean_cross_entropy(logits, labels):
    """Returns the mean over a batch, as in the documentation of all four libraries."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


if __name__ == "__main__":
    main()
