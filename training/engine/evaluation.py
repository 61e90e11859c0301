"""Evaluating a network on a whole data set, exactly, and reporting on it."""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

import utils
from data_loader.device_cache import gather
from data_loader.streams import is_stream
from training.common.labels import are_labels
from training.common.timing import timed
from training.common.trees import pick
from training.distributed.processes import is_distributed
from training.distributed.sharding import put_batch, replicate
from training.engine.finite import report_non_finite
from training.engine.splits import check_numbers, naming, stored_batch
from training.tracking.metric_logger import IN_FLIGHT, MOST_HELD, MetricAccumulator, size_of

LOG = logging.getLogger("main")


class Predictions(NamedTuple):
    """The predictions of a classifier for a data set.

    Attributes:
        logits: (examples, classes) floats.
        targets: (examples,) integers, the true classes.
        images: the picture of a prediction by its number, uint8 (channels, height, width);
            a function or a sequence, or None where the inputs are no pictures.
        classes: a name for each class; None stands for "0", "1", ...
        source: where the predictions are from, in words.
        indices: (examples,) in the data set; None: 0, 1, ...
    """

    logits: np.ndarray
    targets: np.ndarray
    images: Callable[[int], np.ndarray] | Sequence[np.ndarray] | None = None
    classes: Sequence[str] | None = None
    source: str = "the test set"
    indices: np.ndarray | None = None


@timed("evaluation")
def evaluate_all(experiment, params, stop=None):
    """Returns {"test_loss": ...} of every split but the training one; fewer once `stop` is due."""
    results = {}
    for split in experiment.loaders:
        if split != "train":
            results |= evaluate(experiment, params, split, stop=stop)[0]
    return results


def evaluate(experiment, params, split, keep_outputs=False, stop=None):
    """Runs a network over one split of the data, "test" or "validation".

    What is not finite is named with its example: a loss or a metric in a warning, inputs, targets
    and outputs in a UserError.

    Returns:
        The results {"test_loss": ...}, empty once `stop` is due; with `keep_outputs` the outputs
        and targets of every example that counts, and its place in the loader's order, if the
        targets are one label for each; else None.
    """
    measured, kept, loader = [], [], experiment.loaders[split]
    total, number = MetricAccumulator(), 0
    with naming(split):
        for number, batch in enumerate(loader.batches(epoch=1), 1):
            if stop is not None and stop.due():
                return {}, None
            check_numbers(batch, split, loader, number=number - 1)
            batch = put_batch(batch, experiment.mesh)
            sums, outputs = experiment.evaluate(params, batch)
            measured.append(sums)
            if len(measured) > IN_FLIGHT:  # more batches in flight only take up memory
                jax.block_until_ready(measured[-IN_FLIGHT])
            targets = gather(batch["targets"]) if keep_outputs else None
            if are_labels(outputs, targets) and targets.ndim == 1:
                places = len(targets) * (number - 1) + np.arange(len(targets))
                kept.append(real_examples((outputs, targets, places), batch["weight"]))
            if len(measured) * size_of(sums) > MOST_HELD:
                _add(total, measured, experiment, params, split, number)
    # Most are read only now, so that the device never waits for the host.
    _add(total, measured, experiment, params, split, number)
    outputs = _join(kept) if kept else None
    return total.results(experiment.aggregates, f"{split}_"), outputs


def _add(total, measured, experiment, params, split, number):
    """Adds what was measured of the batches up to this number to the total, and forgets it."""
    sums_of_batches, first = jax.device_get(measured), number - len(measured)
    measured.clear()
    report_non_finite(experiment, params, split, sums_of_batches, first)
    for sums in sums_of_batches:
        total.add(sums)


def _join(kept):
    """Joins (outputs, targets, places) of batches, each of which is given up once it is copied."""
    end = sum(len(targets) for _, targets, _ in kept)
    joined = tuple(np.empty((end, *one.shape[1:]), one.dtype) for one in kept[0])
    while kept:
        batch = kept.pop()
        start = end - len(batch[1])
        for whole, part in zip(joined, batch, strict=True):
            whole[start:end] = part
        end = start
    return joined


def predict_classes(experiment, params):
    """Returns the Predictions for the test set, or None where the network is no classifier.

    Then nothing is computed: the config's output and a batch's targets say whether it is one.
    """
    if experiment.output.kind != "softmax":
        return None

    def outputs_and_targets(params, batch):
        params, batch = params if experiment.seeds == 1 else pick(params, 0), gather(batch)
        return experiment.forward(params, batch["inputs"], None, False)[0], batch["targets"]

    batch = stored_batch(experiment, "test")
    outputs, targets = jax.eval_shape(outputs_and_targets, params, batch)
    if not (are_labels(outputs, targets) and len(targets.shape) == 1):
        return None
    return predict(experiment, params)[1]


def predict(experiment, params):
    """Returns the test results, and the Predictions where the network is a classifier.

    Where the memory does not suffice for every output, there are none, and a warning.
    """
    try:
        results, kept = evaluate(experiment, params, "test", keep_outputs=True)
    except MemoryError:
        if is_distributed():  # the other processes do not evaluate once more
            raise
        LOG.warning("No predictions: the memory does not suffice for the outputs of the test set")
        results, kept = evaluate(experiment, params, "test")[0], None
    if experiment.output.kind != "softmax" or kept is None or not is_classification(*kept[:2]):
        return results, None
    outputs, targets, indices = _by_index(experiment.loaders["test"], *kept)
    dataset = experiment.loaders["test"].dataset
    classes = getattr(experiment.loaders["test"], "classes", None)
    if classes is None or len(classes) != outputs.shape[1]:
        classes = [str(index) for index in range(outputs.shape[1])]
    source = "the test set" + (
        f", by the first of {experiment.seeds} seeds" * (experiment.seeds > 1)
    )
    images = None if is_stream(dataset) else lambda number: dataset[int(indices[number])][0]
    return results, Predictions(outputs, targets, images, classes, source, indices)


def _by_index(loader, outputs, targets, places):
    """Returns outputs, targets and indices of examples in the data set's order."""
    order = loader.order(epoch=1) if hasattr(loader, "order") else None
    indices = places if order is None else order[places]
    sort = np.argsort(indices, kind="stable")
    if (np.diff(indices) < 0).any():  # large outputs are not copied if they are in order
        outputs, targets, indices = outputs[sort], targets[sort], indices[sort]
    return outputs, targets.astype(np.int64), indices


def write_report(config, folder, experiment, params, predictions):
    """Writes report.html into a run folder; returns its path, or None without training/report."""
    page = utils.optional_module("training.report.page")
    gallery = utils.optional_module("training.report.gallery")
    if not (page and gallery):
        LOG.info("No report: training/report is not part of this project")
        return None
    shown = gallery.collect_gallery(config, experiment, params)
    return page.write_report(folder, predictions=predictions, gallery=shown)


def real_examples(tree, weight):
    """The examples of a batch that are not padding, on the host."""
    tree, weight = replicate((tree, weight))
    real = np.asarray(weight).reshape(len(weight), -1).any(-1)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[real], tree)


def is_classification(outputs, targets):
    """Whether the outputs can only be logits and the targets classes."""
    return (
        isinstance(outputs, np.ndarray)
        and isinstance(targets, np.ndarray)
        and (outputs.ndim, targets.ndim) == (2, 1)
        and outputs.shape[1] > 1
        and targets.dtype.kind in "biu"
        and targets.size > 0
        and 0 <= targets.min() <= targets.max() < outputs.shape[1]
    )
