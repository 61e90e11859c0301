"""Evaluating a network on a whole data set, exactly."""

import jax
import numpy as np

from training.devices import gathered, put_batch
from training.journal import IN_FLIGHT
from training.profiling import spent
from training.progress import Sums
from training.report import Predictions
from training.resident import fetch


@spent("evaluation")
def evaluate_all(parts, params, stop=None):
    """Returns the results of every split but the training one: {"test_loss": ..., ...}.

    Args:
        parts: what `build` returned.
        params: the network's parameters.
        stop: an Interruption; once it has a signal, the results are empty.
    """
    results = {}
    for split in parts.loaders:
        if split != "train":
            results |= evaluate(parts, params, split, stop=stop)[0]
    return results


def evaluate(parts, params, split, keep_outputs=False, stop=None):
    """Runs a network over one split of the data.

    Args:
        parts: what `build` returned.
        params: the network's parameters.
        split: "test" or "validation".
        keep_outputs: fetch the network's outputs and the targets of every example as well.
        stop: an Interruption; once it has a signal, the results are empty.

    Returns:
        The results {"test_loss": ...}; the outputs and targets in the data set's order, or None.
    """
    measured, kept = [], []
    for batch in parts.loaders[split].batches(epoch=1):
        if stop is not None and stop.due():
            return {}, None
        batch = put_batch(batch, parts.mesh)
        sums, outputs = parts.evaluate(params, batch)
        measured.append(sums)
        if len(measured) > IN_FLIGHT:  # more batches under way than that only take up memory
            jax.block_until_ready(measured[-IN_FLIGHT])
        if keep_outputs:
            kept.append(real_examples((outputs, fetch(batch["targets"])), batch["weight"]))
    total = Sums()
    for sums in jax.device_get(measured):  # only now, so that the device never waits for the host
        total.add(sums)
    outputs = jax.tree.map(lambda *leaves: np.concatenate(leaves), *kept) if kept else None
    return total.results(parts.finish, f"{split}_"), outputs


def predict(parts, params):
    """Returns the test results, and the Predictions where the network is a classifier."""
    results, (outputs, targets) = evaluate(parts, params, "test", keep_outputs=True)
    if not is_classification(outputs, targets):
        return results, None
    dataset = parts.loaders["test"].dataset
    classes = getattr(dataset, "classes", None)
    if classes is None or len(classes) != outputs.shape[1]:
        classes = [str(index) for index in range(outputs.shape[1])]
    source = "the test set" + (f", by the first of {parts.copies} seeds" * (parts.copies > 1))
    return results, Predictions(outputs, targets, lambda index: dataset[index][0], classes, source)


def real_examples(tree, weight):
    """The examples of a batch that are not padding, on the host."""
    tree, weight = gathered((tree, weight))
    real = np.asarray(weight).reshape(len(weight), -1).any(-1)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[real], tree)


def is_classification(outputs, targets):
    """Whether the outputs can only be logits and the targets classes."""
    return (
        isinstance(outputs, np.ndarray)
        and isinstance(targets, np.ndarray)
        and (outputs.ndim, targets.ndim) == (2, 1)
        and outputs.shape[1] > 1
        and np.issubdtype(targets.dtype, np.integer)
        and 0 <= targets.min() <= targets.max() < outputs.shape[1]
    )
