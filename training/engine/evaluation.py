"""Evaluating a network on a whole data set, exactly, and reporting on it."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import utils
from data_loader.device_cache import gather
from data_loader.streams import is_stream
from training.common.labels import are_labels
from training.common.measure import with_names
from training.common.outputs import softmax
from training.common.timing import timed
from training.common.trees import pick
from training.distributed.sharding import put_batch, replicate
from training.engine.finite import report_non_finite
from training.engine.kept_outputs import KeptOutputs
from training.engine.splits import check_numbers, naming, stored_batch
from training.tracking.metric_logger import (
    IN_FLIGHT,
    MOST_HELD,
    MetricAccumulator,
    fetch,
    over_seeds,
    size_of,
)
from utils import UserError, nearest

LOG = logging.getLogger("main")


FEW_CLASSES = 20  # of which every probability is kept of each example
TOP_K = 5  # classes that are kept of more


class Predictions(NamedTuple):
    """The predictions of a classifier for a data set.

    Attributes:
        logits: (examples, classes) floats; None where `top` stands in their place.
        targets: (examples,) integers, the true classes.
        images: the picture of a prediction by its number, uint8 (channels, height, width);
            a function or a sequence, or None where the inputs are no pictures.
        classes: a name for each class; None stands for "0", "1", ...
        source: where the predictions are from, in words.
        indices: (examples,) in the data set; None: 0, 1, ...
        top: of many classes, (examples, k) the most likely ones, and their probabilities.
    """

    logits: np.ndarray | None
    targets: np.ndarray
    images: Callable[[int], np.ndarray] | Sequence[np.ndarray] | None = None
    classes: Sequence[str] | None = None
    source: str = "the test set"
    indices: np.ndarray | None = None
    top: tuple[np.ndarray, np.ndarray] | None = None


class Values(NamedTuple):
    """The outputs of a network that is no classifier, as a person reads them, and the targets."""

    outputs: Any  # (examples, ...) arrays, or a tree of them
    targets: Any
    indices: np.ndarray  # (examples,) in the data set


@timed("evaluation")
def evaluate_all(experiment, params, stop=None):
    """Returns {"test_loss": ...} of every split but the training one; fewer once `stop` is due."""
    results = {}
    for split in experiment.loaders:
        if split != "train":
            results |= evaluate(experiment, params, split, stop=stop)[0]
    check_monitored(results, experiment.monitor)
    return results


def evaluate(experiment, params, split, keep=None, stop=None):
    """Runs a network over one split of the data, "test" or "validation".

    What is not finite is named with its example: a loss or a metric in a warning, inputs, targets
    and outputs in a UserError. Outputs leave the device only where `keep` or a metric over the
    epoch asks for them.

    Args:
        experiment: the Experiment.
        params: of the network.
        split: of the data.
        keep: function of the outputs and targets of some examples, in NumPy, that returns the
            arrays to be kept of them, a tree; None: nothing is kept.
        stop: a StopSignal; None: it runs to the end.

    Returns:
        The results {"test_loss": ...}, empty once `stop` is due; and what `keep` returned, with
        the place of each example in the loader's order, or None.
    """
    measured, loader = [], experiment.loaders[split]
    whole = [KeptOutputs() for _ in range(experiment.seeds if experiment.over_the_epoch else 0)]
    kept = KeptOutputs() if keep else None
    total, number, size = MetricAccumulator(), 0, None
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
            for seed, one in enumerate(whole):
                one.add(of_positions(outputs_of(experiment, params, batch, outputs, seed), batch))
            if kept:
                count = len(batch["weight"])
                places = count * (number - 1) + np.arange(count)
                targets = gather(batch["targets"])
                *found, places = real_examples((outputs, targets, places), batch["weight"])
                if not _memory_suffices(kept.add, (keep(*found), places)):
                    kept = None
            size = size or size_of(sums)
            if len(measured) * size > MOST_HELD:
                _add(total, measured, experiment, params, split, number)
        # Most are read only now, so that the device never waits for the host.
        _add(total, measured, experiment, params, split, number)
        results = total.results(experiment.aggregates, f"{split}_")
        if whole:
            found = over_the_epoch(experiment, [one.join() for one in whole], split)
            results = with_names(results, found, "a metric over the epoch")
    return results, _memory_suffices(kept.join) if kept else None


def _memory_suffices(keep, *args):
    """Returns what a method of KeptOutputs does, or True; None with a warning where it cannot."""
    try:
        result = keep(*args)
        return True if result is None else result
    except (MemoryError, UserError) as error:
        LOG.warning("No predictions: the memory does not suffice for them. %s", error)
        return None


def outputs_of(experiment, params, batch, outputs, seed):
    """Returns the outputs of one of several seeds: `evaluate` returns those of the first."""
    if seed == 0:
        return outputs
    first = jax.tree.map(lambda leaf: jnp.roll(leaf, -seed, axis=0), params)
    return experiment.evaluate(first, batch)[1]


def of_positions(outputs, batch):
    """Returns outputs and targets on the host without what has the weight 0.

    Where every position has a weight, and an output and a target, positions take the place of
    examples.
    """
    tree, weight = (outputs, gather(batch["targets"])), batch["weight"]
    if any(leaf.shape[:1] != weight.shape[:1] for leaf in jax.tree.leaves(tree)):
        raise UserError(
            f"a metric over the epoch needs outputs and targets of each of the {len(weight)} "
            "examples of a batch, and one of them has none"
        )
    if any(leaf.shape[: weight.ndim] != weight.shape for leaf in jax.tree.leaves(tree)):
        return real_examples(tree, weight)
    tree, weight = replicate((tree, weight))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[np.asarray(weight) != 0], tree)


def over_the_epoch(experiment, whole, split):
    """Returns {name: number} of the metrics over the epoch.

    Args:
        experiment: the Experiment.
        whole: [(outputs, targets)] of each seed, on the host.
        split: of the data.
    """
    results = {}
    for name, metric in experiment.over_the_epoch.items():
        of_seeds = [metric(*one) for one in whole]
        found = of_seeds[0] if len(of_seeds) == 1 else over_seeds(of_seeds)
        found = {f"{split}_{key}": one for key, one in found.items()}
        results = with_names(results, found, f"the metric {name}")
    return results


def check_monitored(results, monitor):
    """Refuses a training.monitor of a split that was evaluated, which has no such number.

    Args:
        results: {"test_loss": ...} of an evaluation.
        monitor: the key of the config, or None.
    """
    name = (monitor or "").partition(" ")[2]
    numbers = [key for key, one in results.items() if np.ndim(one) == 0]
    splits = {f"{key.partition('_')[0]}_" for key in numbers}
    if name.startswith(tuple(splits)) and name not in numbers:
        raise UserError(
            f"training.monitor: no {name!r} is measured{nearest(name, numbers)}; there are "
            f"{', '.join(numbers)}"
        )


def _add(total, measured, experiment, params, split, number):
    """Adds what was measured of the batches up to this number to the total, and forgets it."""
    sums_of_batches, first = fetch(measured), number - len(measured)
    measured.clear()
    report_non_finite(experiment, params, split, sums_of_batches, first)
    for sums in sums_of_batches:
        total.add(sums)


def predict_classes(experiment, params):
    """Returns the Predictions for the test set, or None where the network is no classifier.

    Then nothing is computed: the config's output and a batch's targets say whether it is one.
    """
    classes = _classes_of(experiment, params)
    return _classify(experiment, params, classes)[1] if classes else None


def predict(experiment, params, top_k=None, values=False):
    """Returns the test results, and what the network predicts for the test set.

    Args:
        experiment: the Experiment.
        params: of the network.
        top_k: most likely classes that are kept of each example; None: all of FEW_CLASSES, TOP_K
            of more.
        values: whether the outputs of a network that is no classifier are wanted.

    Returns:
        The results, and Predictions, or Values where they are wanted, or None.
    """
    if classes := _classes_of(experiment, params):
        return _classify(experiment, params, classes, top_k)
    if not values:
        return evaluate(experiment, params, "test")[0], None
    results, found = evaluate(experiment, params, "test", partial(_read, experiment))
    if found is None:
        return results, None
    kept, places = found
    (outputs, targets), indices = _by_index(experiment.loaders["test"], kept, places)
    return results, Values(outputs, targets, indices)


def _classify(experiment, params, classes, top_k=None):
    """Returns the test results and the Predictions of a classifier; see `predict`."""
    k = min(top_k or (classes if classes <= FEW_CLASSES else TOP_K), classes)
    keep = partial(_classified, k=k, classes=classes)
    results, found = evaluate(experiment, params, "test", keep)
    return results, found and _predictions(experiment, *found, classes)


def _classes_of(experiment, params):
    """Returns the number of classes, where the network is a classifier of whole examples, or 0."""
    if experiment.output.kind != "softmax":
        return 0
    outputs, batch = test_shapes(experiment, params)
    labels = are_labels(outputs, batch["targets"]) and len(batch["targets"].shape) == 1
    return outputs.shape[-1] if labels else 0


def test_shapes(experiment, params):
    """Returns the outputs for a batch of the test set, and the batch, as shapes."""

    def outputs_and_batch(params, batch):
        params, batch = params if experiment.seeds == 1 else pick(params, 0), gather(batch)
        return experiment.forward(params, batch["inputs"], None, False)[0], batch

    return jax.eval_shape(outputs_and_batch, params, stored_batch(experiment, "test"))


def _classified(logits, targets, k, classes):
    """Returns what is kept of each example: its target, and logits or the k most likely classes."""
    targets = targets.astype(np.int64)
    if k == classes and classes <= FEW_CLASSES:
        return {"targets": targets, "logits": logits}
    if k == classes:
        top = np.argsort(-logits, axis=1, kind="stable")
    else:
        top = np.argpartition(-logits, k, axis=1)[:, :k]
        top = np.sort(top, axis=1)  # of equal logits the lower class comes first, as in argmax
        order = np.argsort(-np.take_along_axis(logits, top, 1), axis=1, kind="stable")
        top = np.take_along_axis(top, order, 1)
    chances = np.take_along_axis(softmax(logits), top, 1).astype(np.float32)
    return {"targets": targets, "top": (top.astype(np.int32), chances)}


def _read(experiment, outputs, targets):
    return experiment.output.read(outputs), targets


def _predictions(experiment, kept, places, count):
    """Returns the Predictions of what was kept; None where a target is no class."""
    loader = experiment.loaders["test"]
    kept, indices = _by_index(loader, kept, places)
    targets, dataset = kept["targets"], loader.dataset
    if not (len(targets) and 0 <= targets.min() <= targets.max() < count):
        return None
    classes = getattr(loader, "classes", None)
    if classes is None or len(classes) != count:
        classes = [str(index) for index in range(count)]
    source = "the test set" + (
        f", by the first of {experiment.seeds} seeds" * (experiment.seeds > 1)
    )
    images = None if is_stream(dataset) else lambda number: dataset[int(indices[number])][0]
    logits, top = kept.get("logits"), kept.get("top")
    return Predictions(logits, targets, images, classes, source, indices, top)


def _by_index(loader, kept, places):
    """Returns what was kept, and the indices of the examples, in the data set's order."""
    order = loader.order(epoch=1) if hasattr(loader, "order") else None
    indices = places if order is None else order[places]
    if (np.diff(indices) < 0).any():  # what is large is not copied if it is in order
        sort = np.argsort(indices, kind="stable")
        kept, indices = jax.tree.map(lambda leaf: leaf[sort], kept), indices[sort]
    return kept, indices


def write_report(config, folder, experiment, params, predictions):
    """Writes report.html into a run folder; returns its path, or None without training/report."""
    page = utils.optional_module("training.report.page")
    gallery = utils.optional_module("training.report.gallery")
    if not (page and gallery):
        LOG.info("No report: training/report is not part of this project")
        return None
    examples = utils.optional_module("training.report.examples")
    shown = gallery.collect_gallery(config, experiment, params)
    sections = examples.collect_sections(experiment, params, predictions is not None)
    return page.write_report(folder, predictions=predictions, gallery=shown, sections=sections)


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
