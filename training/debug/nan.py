"""Finds where a loss or gradient stopped being finite, saves that step and replays it.

python -m training.debug.nan saved/.../not-finite-step_57.params
"""

import argparse
import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import utils
from training.checkpoint.reading import read
from training.checkpoint.restore import current_name, restore
from training.checkpoint.single_file import write
from training.common.kept_code import add_options, use_code_of
from training.common.labels import are_probabilities, sums_to_one
from training.common.measure import loss_name, measure_loss
from training.common.trees import merge, pick, split
from training.config import read_config
from training.distributed.processes import broadcast
from training.distributed.sharding import replicate
from training.engine.build import build
from training.engine.finite import (
    missing_row,
    non_finite_field,
    non_finite_parameter,
    read_batch,
)
from training.engine.initialize import first_batch
from training.engine.parts import freeze

LISTED = 5  # gradients named in the message


def report_nan(experiment, state, epoch, batch_index, folder):
    """Saves the step that was not finite and raises an error that says what went wrong.

    Args:
        experiment: the Experiment.
        state: the TrainState before that step.
        epoch: the epoch, counted from 1.
        batch_index: the batch of that epoch, counted from 0.
        folder: the run folder; None in a process that leaves this to the first.
    """
    batch, examples = read_batch(experiment, "train", epoch, batch_index)
    state = replicate(state)
    saved = folder and _save_and_explain(
        experiment, state, epoch, batch_index, batch, examples, folder
    )
    raise utils.UserError(broadcast(saved or ""))


def _save_and_explain(experiment, state, epoch, batch_index, batch, examples, folder):
    """Saves the step and returns the message; see `report_nan`."""
    if experiment.mesh is not None:  # the rest runs on a single device
        state = jax.tree.map(np.asarray, state)
    copy = int(np.argmin(state.step))  # the network, of several seeds, that stopped first
    if experiment.seeds > 1:
        experiment = experiment._replace(step_key=functools.partial(experiment.step_key, copy=copy))
        state = pick(state, copy)
    number = int(state.step) + 1
    path = Path(folder) / f"not-finite-step_{number}.params"
    key = jax.random.key_data(experiment.step_key(state.step))
    saved = {"state": state._replace(finite=jnp.ones((), bool)), "batch": batch, "key": key}
    write(path, saved, {"epoch": epoch, "batch": batch_index, "copy": copy})
    reason = diagnose(experiment, state, batch, examples)
    return (
        f"epoch {epoch}, batch {batch_index} (update {number}): {reason}. "
        f"The state before it, the batch and the key are in {path}; look at the step layer by "
        f"layer with: python -m training.debug.nan {path}"
    )


def diagnose(experiment, state, batch, examples=None, show=None):
    """Runs one step un-jitted and returns in words which value was the first not to be finite.

    `examples`, (batch,), are those of the data set that the batch has. `show` is called with
    (path, output) for each layer as it runs.
    """
    if found := non_finite_field(batch, examples):
        return found
    for place, after in experiment.augment.steps(batch, experiment.step_key(state.step)):
        batch = jax.tree.map(np.asarray, after)
        if found := non_finite_field(batch, examples):
            return f"after {place} {found}, before it they are finite"
    prepared = experiment.forward.preprocess(batch["inputs"])
    if found := non_finite_field({"inputs": jax.tree.map(np.asarray, prepared)}, examples):
        return f"after data_loader.preprocess {found}, before it they are finite"
    if name := non_finite_parameter(state.params):
        return f"the parameter {name} is not finite already, since the update before"
    layers, outputs, lost = _run_layers(experiment, state, batch, show, prepared, examples)
    for path, finite in layers.items():
        if not finite and path in lost:
            return lost[path]
        if not finite:
            return f"the first output that is not finite is that of layer {path}"
    if not _finite(outputs):
        return "the network's output is not finite"
    for name in experiment.groups:
        measured = _losses(experiment, state, name, outputs, batch)
        if bad := [one for one, (total, _) in measured.items() if not _finite(total)]:
            hint = _classes_hint(outputs, batch["targets"])
            parts = [one for one in bad if one != loss_name(name)]
            which = f" (its part {', '.join(parts)})" if parts else ""
            return (
                f"all outputs are finite, but the loss of optimizer group {name!r}{which} is "
                f"not{hint}"
            )
    for name in experiment.groups:
        paths = _non_finite_gradients(experiment, state, batch, name, list(layers))
        if paths:
            shown = ", ".join(paths[1:LISTED])
            others = f"; of {len(paths)} in all, the next are {shown}" if shown else ""
            return (
                "all outputs and losses are finite, but the first gradient that is not is "
                f"the gradient of {paths[0]} (optimizer group {name!r}){others}"
            )
    return "computed un-jitted the step is finite: its values are at the limits of the dtype"


def replay(path, trust=False, own_code=False, allow=()):
    """Repeats a saved step un-jitted and prints the range of each layer's output."""
    folder = Path(path).parent
    use_code_of(folder, trust, own_code)
    arrays, meta = read(path)
    seed = read_config(folder / "config.json", (), allow).seed + meta["copy"]
    config = read_config(folder / "config.json", [f"seed={seed}", "training.seeds=1"], allow)
    experiment = build(config, folder / "config.json")
    batch = first_batch(experiment)
    template = {"state": jax.eval_shape(experiment.init, batch), "batch": batch}
    arrays = {current_name(name): array for name, array in arrays.items() if name != "key"}
    saved = restore(template, arrays, where=path)

    def show(layer, output):
        for leaf in jax.tree.leaves(output):
            low, high = float(leaf.min()), float(leaf.max())
            print(f"{layer:<40} {leaf.shape!s:<22} from {low:.4g} to {high:.4g}")

    print(f"epoch {meta['epoch']}, batch {meta['batch']}")
    _, examples = read_batch(experiment, "train", meta["epoch"], meta["batch"])
    print(diagnose(experiment, saved["state"], saved["batch"], examples, show))


@utils.command
def main(argv=None):
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        "python -m training.debug.nan", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("path", help="not-finite-step_<n>.params of a run folder")
    add_options(parser)
    options = parser.parse_args(argv)
    replay(options.path, options.trust, options.own_code, options.allow)


def _run_layers(experiment, state, batch, show, prepared, examples):
    """Runs forward un-jitted.

    Returns:
        {path of a layer: whether its output is finite}, the outputs, and {path of a table: what it
        has no row for, in words}.
    """
    from model.modules import watch_layers

    layers, lost = {}, {}

    def watch(path, output, params):
        layers[path] = layers.get(path, True) and _finite(output)
        if words := missing_row(path, output, params, prepared, examples):
            lost.setdefault(path, words)
        if show:
            show(path, output)

    with watch_layers(watch):
        key = experiment.step_key(state.step)
        outputs, _ = experiment.forward(state.params, batch["inputs"], key, True)
    return layers, outputs, lost


def _losses(experiment, state, name, outputs, batch, params=None):
    """Returns what is measured of the loss of an optimizer group in that step."""
    params = state.params if params is None else params
    given = {"step": state.step, "key": experiment.step_key(state.step), "train": True}
    loss = experiment.groups[name].loss
    return measure_loss(name, loss, outputs, batch, params=params, **given)


def _non_finite_gradients(experiment, state, batch, name, layers):
    """Returns the paths of these parameters, the last layer first: backpropagation's order."""
    trained, _ = split(freeze(state.params, experiment.parts.freeze)[0])
    key = experiment.step_key(state.step)

    def total(trained):
        params = merge(trained, state.params)
        outputs, _ = experiment.forward(params, batch["inputs"], key, True)
        return _losses(experiment, state, name, outputs, batch, params)[loss_name(name)][0]

    grads = jax.tree_util.tree_leaves_with_path(jax.grad(total)(trained))
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, grad in grads
        if not _finite(grad)
    ]
    order = {path: index for index, path in enumerate(layers)}
    return sorted(paths, key=lambda path: -order.get(path.rpartition("/")[0], -1))


def _classes_hint(outputs, targets):
    """Returns a hint, where a target is a class that the network has no output for, or ""."""
    if not (hasattr(outputs, "shape") and hasattr(targets, "dtype") and outputs.ndim > 1):
        return ""
    if are_probabilities(outputs, targets) and not sums_to_one(targets).all():
        return ": targets of the shape of the outputs are probabilities, which must sum to 1"
    if targets.shape != outputs.shape[:-1] or not np.issubdtype(targets.dtype, np.integer):
        return ""
    low, high, classes = int(targets.min()), int(targets.max()), outputs.shape[-1]
    if 0 <= low <= high < classes:
        return ""
    return (
        f": the targets go from {low} to {high}, while the network has {classes} outputs, for the "
        f"classes 0 to {classes - 1}. Count classes from 0, and give the network an output for each"
    )


def _finite(tree):
    return all(np.isfinite(np.asarray(leaf, np.float64)).all() for leaf in jax.tree.leaves(tree))


if __name__ == "__main__":
    sys.exit(main())
