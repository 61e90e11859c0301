"""An update of a large network over the bare jitted step of the same optimizer: time and memory.

    python benchmarks/large_update.py [--width 11616] [--rounds 7]

The network is an MLP of two hidden layers; a width of 11,616 makes 144 million parameters, and two
states of them take 3.5 GB. Rounds are interleaved. Wanted: at most 1.03, and no more memory.
"""

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax

from model.model import mlp
from training.engine.compilation import FAST, compile_functions
from training.engine.step import OptimizerGroup, make_forward, make_init, make_step
from training.loss import cross_entropy
from training.optimizers import adamw

BATCH = 32


def main():
    """Prints the temporary memory of both, and the median ratio of their times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=11_616)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    network, optimizer = partial(mlp, feat_dims=[options.width] * 2), adamw(1e-4)
    groups, forward = {"network": OptimizerGroup(cross_entropy, optimizer)}, make_forward(network)
    init, update, _ = compile_functions(
        make_init(forward, groups), make_step(forward, groups, {}), forward
    )
    bare = jax.jit(
        partial(bare_step, network, optimizer),
        donate_argnums=(0, 1),
        compiler_options=FAST.get(jax.default_backend()),
    )
    random = np.random.default_rng(0)
    batch = {
        "inputs": random.normal(size=(BATCH, 784)).astype(np.float32),
        "targets": random.integers(0, 10, BATCH).astype(np.int32),
        "weight": np.ones(BATCH, np.float32),
    }
    state = init(batch)
    params = jax.tree.map(jnp.copy, state.params)
    moments = jax.tree.map(jnp.copy, optimizer.init(params))
    for name, call in (
        ("update", update.lower(state, batch)),
        ("bare step", bare.lower(params, moments, batch)),
    ):
        memory = call.compile().memory_analysis().temp_size_in_bytes
        print(f"{name}: {memory / 2**20:.0f} MiB temporary")
    ratios = []
    for number in range(options.rounds + 1):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(update(state, batch))
        between = time.perf_counter()
        params, moments = jax.block_until_ready(bare(params, moments, batch))
        ended = time.perf_counter()
        if number:  # the first is not counted
            ratios.append((between - began) / (ended - between))
            print(f"update {between - began:.2f} s, bare step {ended - between:.2f} s", flush=True)
    print(f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def bare_step(network, optimizer, params, state, batch):
    """Returns the parameters and the optimizer's state after one step, unchecked."""

    def loss(params):
        outputs, _ = network(batch["inputs"], params=params, key=None, train=True)
        return cross_entropy(outputs, batch["targets"]).mean()

    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state


if __name__ == "__main__":
    main()
