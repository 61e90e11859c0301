"""`python train.py --check`: builds everything, tries one batch, and leaves nothing behind."""

import jax
import numpy as np

from training.build import build
from training.optimizers import evaluation_params
from training.progress import Sums
from training.start import count, first_batch

MIB = 2**20  # bytes


def check(config, source):
    """Prints the network's layers and one batch's results; returns the exit code."""
    parts = build(config, source)
    batch = first_batch(parts)
    state = parts.init(batch)
    print(layer_table(parts, state.params, batch["inputs"]))
    print()
    optimizer = _bytes(state.optimizers) + _bytes(state.average)
    print(f"parameters   {count(state.params):>12,}   {_bytes(state.params) / MIB:10.3f} MiB")
    print(f"optimizer    {'':12}   {optimizer / MIB:10.3f} MiB")
    print(f"one batch    {len(batch['weight']):>12,}   {_bytes(batch) / MIB:10.3f} MiB")
    compiled = parts.update.lower(state, batch).compile()
    memory = compiled.memory_analysis()
    if memory is not None:
        print(f"one update   {'':12}   {memory.temp_size_in_bytes / MIB:10.3f} MiB besides these")

    evaluated, _ = parts.evaluate(evaluation_params(state), batch)
    _, measured = compiled(state, batch)
    finite = measured.pop("finite")
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
    """Returns a table of the layers: path, shape of the output, parameters."""
    from model.modules import watch_layers

    rows = []

    def watch(path, output, params):
        shapes = " ".join(str(leaf.shape) for leaf in jax.tree.leaves(output))
        rows.append((path, shapes, f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}"))

    with watch_layers(watch):
        outputs = jax.eval_shape(
            lambda params, inputs: parts.forward(params, inputs, None, False)[0], params, inputs
        )
    shapes = " ".join(str(leaf.shape) for leaf in jax.tree.leaves(outputs))
    rows.append(("(the network)", shapes, f"{count(params):,}"))
    path_width = max(len("layer"), *(len(path) for path, _, _ in rows))
    shape_width = max(len("output"), *(len(shape) for _, shape, _ in rows))
    header = f"{'layer':<{path_width}}  {'output':<{shape_width}}  {'parameters':>10}"
    lines = [header, "-" * len(header)]
    lines += [f"{path:<{path_width}}  {shape:<{shape_width}}  {n:>10}" for path, shape, n in rows]
    return "\n".join(lines)


def _bytes(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
