"""When a loss or gradient is not finite: keep the step, find where it began, say how to replay it.

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
from data_loader.device_cache import gather
from training.common.trees import pick
from training.distributed.processes import broadcast
from training.distributed.sharding import put_batch, replicate

CULPRITS = 5  # gradients named in the message


def report_nan(experiment, state, epoch, batch_index, folder):
    """Saves the step that was not finite and raises an error that says what went wrong.

    Args:
        parts: what `build` returned.
        state: the TrainState, which stands as it was before that step.
        epoch: the epoch, counted from 1.
        batch_index: the batch of that epoch.
        folder: the run folder; None in a process that leaves this to the first.

    Raises:
        UserError: always.
    """
    batches = experiment.loaders["train"].batches(epoch, batch_index)
    batch = put_batch(gather(next(batches)), experiment.mesh)
    batches.close()
    state, batch = replicate((state, batch))
    told = (
        "" if folder is None else _explanation(experiment, state, epoch, batch_index, batch, folder)
    )
    raise utils.UserError(broadcast(told))


def _explanation(experiment, state, epoch, batch_index, batch, folder):
    """Saves the step and returns the message; see `explain`."""
    from training.checkpoint.single_file import write

    if experiment.mesh is not None:  # what follows is for a single device
        state, batch = jax.tree.map(np.asarray, (state, batch))
    copy = int(np.argmin(state.step))  # of several, the first to have stopped
    if experiment.seeds > 1:
        experiment = experiment._replace(step_key=functools.partial(experiment.step_key, copy=copy))
        state = pick(state, copy)
    step = int(state.step)
    path = Path(folder) / f"not-finite-step_{step + 1}.params"
    key = jax.random.key_data(experiment.step_key(state.step))
    meta = {"epoch": epoch, "batch": batch_index, "copy": copy}
    step_taken = {"state": state._replace(finite=jnp.ones((), bool)), "batch": batch, "key": key}
    write(path, step_taken, meta)
    return (
        f"epoch {epoch}, batch {batch_index} (update {step + 1}): {diagnose(experiment, state, batch)}. "
        f"The state before it, the batch and the key are in {path}; look at the step layer by "
        f"layer with: python -m training.debug.nan {path}"
    )


def diagnose(experiment, state, batch, show=None):
    """Runs one step un-jitted and returns in words what was the first not to be finite.

    Args:
        parts: what `build` returned.
        state: the TrainState before the step.
        batch: its batch.
        show: called with (path, output) for each layer as it runs.
    """
    from training.common.measure import measure

    if not _finite(batch["inputs"]):
        return "the inputs of the batch are not finite"
    layers, outputs = _run_layers(experiment, state, batch, show)
    for path, finite in layers.items():
        if not finite:
            return f"the first output that is not finite is that of layer {path}"
    if not _finite(outputs):
        return "the network's output is not finite"
    losses = {name: group.loss for name, group in experiment.groups.items()}
    for name, (total, _) in measure(losses, outputs, batch).items():
        if not _finite(total):
            return f"all outputs are finite, but the loss of rule {name!r} is not" + _beyond(
                outputs, batch["targets"]
            )
    for name, loss in losses.items():
        wrong = _gradients_not_finite(experiment, state, batch, loss, list(layers))
        if wrong:
            shown = ", ".join(wrong[1:CULPRITS])
            others = f"; of {len(wrong)} in all, the next are {shown}" if shown else ""
            return (
                "all outputs and losses are finite, but the first gradient that is not is "
                f"the gradient of {wrong[0]} (rule {name!r}){others}"
            )
    return "computed un-jitted the step is finite: its values are at the edge of what floats hold"


def replay(path):
    """Repeats a saved step un-jitted and prints each layer's output on the way."""
    from training.checkpoint.reading import read
    from training.checkpoint.restore import current_name, restore
    from training.config import read_config
    from training.engine.build import build
    from training.engine.initialize import first_batch

    folder = Path(path).parent
    utils.use_code_of(folder)
    arrays, meta = read(path)
    seed = read_config(folder / "config.json").seed + meta["copy"]
    config = read_config(folder / "config.json", [f"seed={seed}", "training.seeds=1"])
    experiment = build(config, folder / "config.json")
    like = first_batch(experiment)
    template = {"state": jax.eval_shape(experiment.init, like), "batch": like}
    arrays = {current_name(name): array for name, array in arrays.items() if name != "key"}
    saved = restore(template, arrays, where=path)

    def show(layer, output):
        for leaf in jax.tree.leaves(output):
            low, high = float(leaf.min()), float(leaf.max())
            print(f"{layer:<40} {leaf.shape!s:<22} from {low:.4g} to {high:.4g}")

    print(f"epoch {meta['epoch']}, batch {meta['batch']}")
    print(diagnose(experiment, saved["state"], saved["batch"], show))


def main(argv=None):
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Repeats a step that was not finite, by layers.")
    parser.add_argument("path", help="not-finite-step_<n>.params of a run folder")
    try:
        replay(parser.parse_args(argv).path)
    except utils.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run_layers(experiment, state, batch, show):
    """Runs forward un-jitted: {path of the layer: whether its output is finite}, the outputs."""
    from model.modules import watch_layers

    layers = {}

    def watch(path, output, params):
        layers[path] = layers.get(path, True) and _finite(output)
        if show:
            show(path, output)

    with watch_layers(watch):
        key = experiment.step_key(state.step)
        outputs, _ = experiment.forward(state.params, batch["inputs"], key, True)
    return layers, outputs


def _gradients_not_finite(experiment, state, batch, loss, layers):
    """Paths of the parameters with such gradients, from the last layer to the first, as made."""
    from training.common.measure import measure
    from training.common.trees import merge, split

    trained, fixed = split(state.params)
    key = experiment.step_key(state.step)

    def total(trained):
        outputs, _ = experiment.forward(merge(trained, fixed), batch["inputs"], key, True)
        return measure({"loss": loss}, outputs, batch)["loss"][0]

    grads = jax.tree_util.tree_leaves_with_path(jax.grad(total)(trained))
    wrong = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, grad in grads
        if not _finite(grad)
    ]
    order = {path: index for index, path in enumerate(layers)}
    return sorted(wrong, key=lambda path: -order.get(path.rpartition("/")[0], -1))


def _beyond(outputs, targets):
    """Tells of classes that there is no output for."""
    if not (hasattr(outputs, "shape") and hasattr(targets, "dtype") and outputs.ndim > 1):
        return ""
    low, high, classes = int(targets.min()), int(targets.max()), outputs.shape[-1]
    fits = targets.shape == outputs.shape[:-1] and np.issubdtype(targets.dtype, np.integer)
    if not fits or 0 <= low <= high < classes:
        return ""
    return (
        f": the targets go from {low} to {high}, while the network has {classes} outputs, for the "
        f"classes 0 to {classes - 1}. Count classes from 0, and give the network an output for each"
    )


def _finite(tree):
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return all(np.isfinite(leaf.astype(np.float64)).all() for leaf in leaves)


if __name__ == "__main__":
    sys.exit(main())
