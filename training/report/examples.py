"""Examples of the test set for the report's pages, with what the network makes of them."""

import logging
from typing import Any, NamedTuple

import jax
import numpy as np

from data_loader.device_cache import gather
from data_loader.streams import is_stream
from training.distributed.processes import is_distributed
from training.distributed.sharding import put_batch
from training.engine.evaluation import real_examples, test_shapes
from training.report import pages
from training.report.sections import Section, run_function

MOST_EXAMPLES, MOST_BYTES = 5000, 2**26  # of the examples that the pages show and count
LOG = logging.getLogger("main")


class Examples(NamedTuple):
    """Some examples of the test set, on the host."""

    inputs: Any  # (examples, ...) or a tree of such, as stored
    outputs: Any  # as a person reads them: probabilities, values, or what `output` makes of them
    targets: Any
    total: int | None  # of the test set; None for a stream


def collect_sections(experiment, params, classified):
    """Returns the Sections of a report that show examples of the test set.

    Args:
        experiment: Experiment.
        params: to evaluate with; None: no sections.
        classified: whether the report shows the predictions of a classifier.
    """
    try:
        page = None if classified or params is None else _page(experiment, params)
        if params is None or not (page or experiment.reports):
            return []
        if is_distributed():
            LOG.info(
                "On several hosts the report shows no test examples; test.py, on one, adds them"
            )
            return []
        some = _examples(experiment, params)
    except Exception as error:  # of memory, for one: the run and the rest of its report survive
        LOG.warning("The report shows no test examples: %s", str(error).partition("\n")[0])
        return [Section("Test examples", error=str(error).partition("\n")[0])]
    functions = [(page.__name__.capitalize(), page)] if page else []
    functions += [(name.rpartition(":")[2], one) for name, one in experiment.reports]
    return [run_function(name, one, some) for name, one in functions]


def names_of(experiment):
    """The names of the test set's classes, labels or values, or None."""
    loader = experiment.loaders["test"]
    names = getattr(loader, "classes", None)
    return getattr(loader.dataset, "target_names", None) if names is None else names


def _page(experiment, params):
    """The page for the outputs' kind and the targets, `f(inputs, outputs, targets)`, or None."""
    outputs, batch = test_shapes(experiment, params)
    kind, targets = experiment.output.kind, batch["targets"]
    if experiment.output.function or not (hasattr(outputs, "shape") and hasattr(targets, "shape")):
        return None
    same, axes = outputs.shape == targets.shape, len(targets.shape)
    if kind == "none" and same:
        chosen = pages.regression
    elif kind == "sigmoid" and same and axes == 2:
        chosen = pages.labels
    elif (kind == "sigmoid" and same and axes > 2) or (
        kind == "softmax" and outputs.shape[:-1] == targets.shape and axes == 3
    ):
        chosen = pages.masks
    else:
        return None
    names = names_of(experiment)

    def page(inputs, outputs, targets):
        return chosen(inputs, outputs, targets, names=names)

    page.__name__, page.__doc__ = chosen.__name__, chosen.__doc__
    return page


def _examples(experiment, params):
    """Returns the Examples, evenly from the test set; of a stream the first."""
    loader = experiment.loaders["test"]
    sizes = _bytes(test_shapes(experiment, params))
    count = max(1, min(MOST_EXAMPLES, MOST_BYTES * loader.batch_size // max(1, sizes)))
    total = None
    if not is_stream(loader.dataset):
        total = len(loader.indices)
        chosen = np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))
        loader = loader.only(loader.indices[chosen])
    kept, seen = [], 0
    for batch in loader.batches(epoch=1):
        batch = put_batch(batch, experiment.mesh)
        _, outputs = experiment.evaluate(params, batch)
        one = gather({"inputs": batch["inputs"], "targets": batch["targets"]})
        kept.append(real_examples((one["inputs"], outputs, one["targets"]), batch["weight"]))
        seen += len(jax.tree.leaves(kept[-1][1])[0])
        if seen >= count:
            break
    inputs, outputs, targets = jax.tree.map(lambda *parts: np.concatenate(parts), *kept)
    return Examples(inputs, experiment.output.read(outputs), targets, total)


def _bytes(shapes):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
