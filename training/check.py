"""`python train.py --check`: builds everything, tries one batch, and leaves nothing behind."""

import jax
import numpy as np

from training.build import build
from training.devices import check_devices, put_batch
from training.optimizers import evaluation_params
from training.progress import Sums
from training.start import count, first_batch, rehearse
from training.trees import pick, split

MIB = 2**20  # bytes


def check(config, source):
    """Prints the network's layers and one batch's results; returns the exit code."""
    parts = build(config, source)
    check_devices(config, parts.loaders["train"].batch_size, source)
    batch = first_batch(parts)
    rehearse(parts, batch)
    batch = put_batch(batch, parts.mesh)
    state = parts.init(batch)
    params = state.params if parts.copies == 1 else pick(state.params, 0)
    print(layer_table(parts, params, batch["inputs"]))
    print()
    optimizer = _bytes(state.optimizers) + _bytes(state.average)
    print(f"parameters   {count(params):>12,}   {_bytes(state.params) / MIB:10.3f} MiB")
    print(f"optimizer    {'':12}   {optimizer / MIB:10.3f} MiB")
    print(f"one batch    {len(batch['weight']):>12,}   {_bytes(batch) / MIB:10.3f} MiB")
    call, _ = next(parts.calls(epoch=1))
    compiled = parts.update.lower(state, call).compile()
    memory = compiled.memory_analysis()
    if memory is not None:
        print(f"one update   {'':12}   {memory.temp_size_in_bytes / MIB:10.3f} MiB besides these")

    evaluated, _ = parts.evaluate(evaluation_params(state), batch)
    _, measured = compiled(state, call)
    if parts.steps_per_call > 1:
        measured = pick(measured, 0)
    finite = measured.pop("finite").all()
    print()
    for title, figures in (("update", measured), ("evaluate", evaluated)):
        sums = Sums()
        sums.add(figures)
        results = sums.results(parts.finish)
        numbers = {name: value for name, value in results.items() if np.ndim(value) == 0}
        print(f"{title:<12} " + ", ".join(f"{name} {value:.5g}" for name, value in numbers.items()))
    print()
    print("All is well." if finite else "The loss or a gradient is not finite already.")
    return 0 if finite else 1


def layer_table(parts, params, inputs):
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
        return parts.forward(params, inputs, None, False)[0]

    with watch_layers(watch):
        outputs = jax.eval_shape(network, params, inputs)
    watch("(the network)", outputs, split(params)[0])
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{path:<{widths[0]}}  {shape:<{widths[1]}}  {memory:>{widths[2]}}  {number:>{widths[3]}}"
        for path, shape, memory, number in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _bytes(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
