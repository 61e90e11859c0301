"""An update of a large network over the bare jitted step of the same optimizer: time and memory.

    python benchmarks/large_update.py [--width 11616] [--rounds 7]

The network is an MLP of two hidden layers; a width of 11,616 makes 144 million parameters, and
three states of them take 5.2 GB. Rounds are interleaved; ratios are of the time, and of the
processors' time. The update computes the gradient's norm, and a second bare step does so too.
Wanted: at most 1.03, and no more memory.
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
    bare, with_norm = (
        jax.jit(
            partial(bare_step, network, optimizer, norm),
            donate_argnums=(0, 1),
            compiler_options=FAST.get(jax.default_backend()),
        )
        for norm in (False, True)
    )
    random = np.random.default_rng(0)
    batch = {
        "inputs": random.normal(size=(BATCH, 784)).astype(np.float32),
        "targets": random.integers(0, 10, BATCH).astype(np.int32),
        "weight": np.ones(BATCH, np.float32),
    }
    state = init(batch)
    states = {"update": (state,)}
    for name in ("bare step", "bare step with norm"):  # none shares an array, as all are donated
        states[name] = jax.tree.map(jnp.copy, (state.params, optimizer.init(state.params)))
    calls = {
        "bare step": lambda *state: bare(*state, batch)[:2],
        "bare step with norm": lambda *state: with_norm(*state, batch)[:2],
        "update": lambda *state: update(*state, batch)[:1],
    }
    for name, call in (("update", update), ("bare step", bare)):
        memory = call.lower(*states[name], batch).compile().memory_analysis().temp_size_in_bytes
        print(f"{name}: {memory / 2**20:.0f} MiB temporary")
    times = {name: [] for name in calls}
    for number in range(options.rounds + 1):
        for name, call in calls.items():
            began, processor = time.perf_counter(), time.process_time()
            states[name] = jax.block_until_ready(call(*states[name]))
            seconds = time.perf_counter() - began, time.process_time() - processor
            if number:  # the first is not counted
                times[name].append(seconds)
                print(f"{name} {seconds[0]:.2f} s, of the processors {seconds[1]:.2f}", flush=True)
    for name in ("update", "bare step with norm"):
        for index, what in enumerate(("time", "processors' time")):
            pairs = zip(times[name], times["bare step"], strict=True)
            ratios = [one[index] / other[index] for one, other in pairs]
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            print(f"{name} over bare step, {what}: {statistics.median(ratios):.3f} ({spread})")


def bare_step(network, optimizer, norm, params, state, batch):
    """Returns the parameters and the optimizer's state after one step, unchecked, and the norm."""

    def loss(params):
        outputs, _ = network(batch["inputs"], params=params, key=None, train=True)
        return cross_entropy(outputs, batch["targets"]).mean()

    grads = jax.grad(loss)(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, optax.tree.norm(grads) if norm else None


if __name__ == "__main__":
    main()
