"""Builds everything that a run needs, and tries a batch of each split."""

from pathlib import Path

import jax
import numpy as np

from training.common.tables import text_table
from training.common.trees import pick, split
from training.distributed.sharding import check_devices, put_batch
from training.engine.build import build
from training.engine.callbacks import bind_callbacks
from training.engine.compilation import use_compilation_cache
from training.engine.evaluation import (
    check_monitored,
    of_positions,
    outputs_of,
    over_the_epoch,
)
from training.engine.finite import non_finite_field, read_batch, report_non_finite
from training.engine.initialize import (
    count_parameters,
    first_batch,
    initial_state,
    part_lines,
    pretrained_state,
    restored_state,
)
from training.engine.resume import read_run
from training.engine.run import check_settings
from training.engine.splits import leakage, stored_batch
from training.engine.step import eval_params
from training.tracking.metric_logger import MetricAccumulator
from utils import check_can_write

MIB = 2**20  # bytes


def try_out(config, source, folder=None, checkpoint=None):
    """Prints the layers and the results of a batch of each split; returns the exit code."""
    check_can_write(folder or Path(config.training.save_dir) / config.title)
    check_settings(config, source)
    bind_callbacks(config, source)
    if config.training.compilation_cache:
        use_compilation_cache()
    arrays, progress, _ = read_run(config, folder, checkpoint)
    experiment = build(config, source, progress)
    check_devices(config, experiment.loaders["train"].batch_size, source)
    batch = first_batch(experiment)
    if checkpoint:
        state = restored_state(experiment, arrays, checkpoint)
    else:
        state = pretrained_state(experiment, initial_state(experiment, batch, config), config)
    batch = put_batch(batch, experiment.mesh)
    _print_sizes(experiment, state, batch)
    print(f"outputs      {experiment.output.why}")
    call, _ = next(experiment.batches(epoch=progress.epochs + 2))  # of a whole epoch
    compiled = experiment.update.lower(state, call).compile()
    memory = compiled.memory_analysis()
    if memory is not None:
        print(f"one update   {'':12}   {memory.temp_size_in_bytes / MIB:10.3f} MiB besides these")
    print()
    evaluated = eval_params(state)  # before the update takes the state's memory
    results = {
        split: _evaluated(experiment, evaluated, split)
        for split in experiment.loaders
        if split != "train"
    }
    _, measured = compiled(state, call)
    if experiment.steps_per_call > 1:
        measured = pick(measured, 0)
    finite = measured.pop("finite").all()
    for name, one in {"update": _results(measured, experiment), **results}.items():
        print(f"{name:<12} {_numbers(one)}")
    print()
    if text := leakage(config.training.monitor):
        print(text, end="\n\n")
    if not finite:
        batch, examples = read_batch(experiment, "train", progress.epochs + 2, 0)
        found = non_finite_field(batch, examples)
        print("The loss or a gradient is not finite already" + f": {found}" * bool(found))
    print("All is well." * bool(finite))
    return 0 if finite else 1


def _print_sizes(experiment, state, batch):
    """Prints the layers, and how much memory parameters, optimizer and a batch take."""
    params = state.params if experiment.seeds == 1 else pick(state.params, 0)
    print(layer_table(experiment, params, batch["inputs"]))
    print()
    optimizer = _bytes(state.optimizers) + _bytes(state.ema_params)
    print(f"parameters   {count_parameters(params):>12,}   {_bytes(state.params) / MIB:10.3f} MiB")
    for line in part_lines(experiment, state.params):
        print(f"{'':13}{line}")
    print(f"optimizer    {'':12}   {optimizer / MIB:10.3f} MiB")
    print(f"one batch    {len(batch['weight']):>12,}   {_bytes(batch) / MIB:10.3f} MiB")


def _evaluated(experiment, params, split):
    """Returns the results of the first batch of a split; refuses what is not finite there."""
    batch = put_batch(stored_batch(experiment, split), experiment.mesh)
    measured, outputs = experiment.evaluate(params, batch)
    measured = [jax.device_get(measured)]
    report_non_finite(experiment, params, split, measured)
    results = _results(measured[0], experiment)
    if experiment.over_the_epoch:
        seeds = range(experiment.seeds)
        of_seeds = [outputs_of(experiment, params, batch, outputs, seed) for seed in seeds]
        found = over_the_epoch(experiment, [of_positions(one, batch) for one in of_seeds], split)
        results |= {name.removeprefix(f"{split}_"): one for name, one in found.items()}
    check_monitored({f"{split}_{name}": one for name, one in results.items()}, experiment.monitor)
    return results


def layer_table(experiment, params, inputs):
    """Returns a table of the layers: path, shape and memory of the output, parameters."""
    from model.modules import watch_layers

    rows = [("layer", "output", "MiB", "parameters")]

    def watch(path, output, params):
        leaves = jax.tree.leaves(output)
        shapes = " ".join(str(leaf.shape) for leaf in leaves)
        memory = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / MIB
        parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        rows.append((path, shapes, f"{memory:.3f}", f"{parameters:,}"))

    def network(params, inputs):
        return experiment.forward(params, inputs, None, False)[0]

    with watch_layers(watch):
        outputs = jax.eval_shape(network, params, inputs)
    watch("(the network)", outputs, split(params)[0])
    lines = text_table(rows, "<<>>")
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _results(measured, experiment):
    """Returns {name: result} of {name: (sum, weight)}."""
    accumulator = MetricAccumulator()
    accumulator.add(measured)
    return accumulator.results(experiment.aggregates)


def _numbers(results):
    """Returns "loss 2.3026, accuracy 0.125", without matrices."""
    return ", ".join(f"{name} {x:.5g}" for name, x in results.items() if np.ndim(x) == 0)


def _bytes(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
