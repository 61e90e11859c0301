"""Values that are not finite: which field of which example has them."""

import logging

import jax
import numpy as np

from data_loader.device_cache import gather
from training.common.measure import call_loss, loss_name
from training.common.trees import pick
from training.distributed.sharding import put_batch, replicate
from training.engine.step import in_evaluation, outputs_finite
from utils import UserError

LISTED = 5  # examples that a message names
LOG = logging.getLogger("main")


def report_non_finite(experiment, params, split, measured, first=0):
    """Names what is not finite in the first batch of an evaluation that has such, if one has.

    Args:
        experiment: the Experiment.
        params: the parameters that were evaluated.
        split: the split of the data.
        measured: what `evaluate` measured of each batch, on the host; "finite" is taken out.
        first: number of the first of these batches.

    Raises:
        UserError: inputs, targets, parameters or outputs are not finite. A loss or a metric alone
            is warned of.
    """
    flags = [sums.pop("finite") for sums in measured]
    for number, (sums, finite) in enumerate(zip(measured, flags, strict=True), first):
        totals = jax.tree.leaves([total for total, _ in sums.values()])
        if finite.all() and all(np.isfinite(total).all() for total in totals):
            continue
        copy = int(np.argmin(_finite_seeds(totals, finite)))
        _explain(experiment, params, split, number, copy)
        return


def _finite_seeds(totals, finite):
    """Whether all is finite, (seeds,), or () where there is one."""
    for total in totals:
        finite = finite & np.isfinite(total).reshape(*np.shape(finite), -1).all(-1)
    return finite


def _explain(experiment, params, split, number, copy):
    """Explains a batch of an evaluation; see `report_non_finite`."""
    batch, examples = read_batch(experiment, split, 1, number)
    where = f"the {split} split"
    if found := non_finite_field(batch, examples):
        raise UserError(f"{where}: {found}. Correct or leave out what the data set has there")
    prepared = experiment.forward.preprocess(batch["inputs"])
    if found := non_finite_field({"inputs": jax.tree.map(np.asarray, prepared)}, examples):
        raise UserError(f"{where}: after data_loader.preprocess {found}, before it they are finite")
    params = jax.tree.map(np.asarray, replicate(params))
    params = params if experiment.seeds == 1 else pick(params, copy)
    if name := non_finite_parameter(params):
        raise UserError(f"{where}: the parameter {name} is not finite after the last update")
    outputs, lost = _outputs(experiment, params, prepared, batch["inputs"], examples)
    if not outputs_finite(outputs, batch["weight"]):
        if lost:
            raise UserError(f"{where}: {lost}")
        allowed = jax.tree.map(lambda leaf: np.where(np.isneginf(leaf), 0, leaf), outputs)
        found = non_finite_field({"": allowed}, examples).removeprefix("the  of ")
        raise UserError(
            f"{where}: the network's outputs for {found}, while the inputs are finite. Lower the "
            "learning rate, or look for a division, a root or a logarithm in the network"
        )
    measured = {
        name: metric(outputs, batch["targets"]) for name, metric in experiment.metrics.items()
    } | {
        loss_name(name): call_loss(group.loss, outputs, batch, **in_evaluation(params))
        for name, group in experiment.groups.items()
    }
    for name, values in measured.items():
        for one in jax.tree.leaves(values):
            if found := non_finite_rows(one, examples):
                LOG.warning("%s: the values of %s for %s", where, name, found)


def _outputs(experiment, params, prepared, inputs, examples):
    """The network's outputs of a batch, and what a table of it has no row for, or ""."""
    from model.modules import watch_layers

    found = []

    def watch(path, output, params):
        found.append(missing_row(path, output, params, prepared, examples))

    with watch_layers(watch):
        outputs, _ = experiment.forward(params, inputs, None, False)
    return outputs, next(filter(None, found), "")


def missing_row(path, output, params, inputs, examples=None):
    """Returns in words which integer of a batch a lookup in a table has no row for, or "".

    Args:
        path: of the layer.
        output: (..., features) of the layer; NaN where there was no row.
        params: of the layer; {"table": (rows, features)} of a lookup.
        inputs: the batch that the network takes, a tree of (batch, ...) arrays.
        examples: (batch,) indices in the data set; None: rows of the batch are counted.
    """
    shape = np.shape(params.get("table")) if isinstance(params, dict) else ()
    if len(shape) != 2 or np.shape(output)[-1:] != shape[1:]:
        return ""
    lost = np.isnan(np.asarray(output, np.float64)).all(-1)
    if not lost.any():
        return ""
    for leaf in map(np.asarray, jax.tree.leaves(inputs)):
        if leaf.shape != lost.shape or leaf.dtype.kind not in "iu":
            continue
        bad = lost & ((leaf < 0) | (leaf >= shape[0]))
        if bad.any():
            row, *place = np.argwhere(bad)[0].tolist()
            name = f"row {row} of the batch" if examples is None else f"example {examples[row]}"
            return (
                f"the inputs of {name} have {leaf[(row, *place)]} at {place}, and the table of "
                f"layer {path} has {shape[0]} rows, for the integers 0 to {shape[0] - 1}. Give it "
                "more rows, or correct the data"
            )
    return f"layer {path} was given an integer that its table of {shape[0]} rows has no row for"


def read_batch(experiment, split, epoch, number):
    """Returns a batch of a split, whole on the host, and the examples in it.

    Returns:
        The batch, and (batch,) their indices in the data set; None where a loader of the user's
        does not tell.
    """
    loader = experiment.loaders[split]
    batches = loader.batches(epoch, number)
    try:
        batch = gather(next(batches))
    finally:
        getattr(batches, "close", lambda: None)()
    batch = jax.tree.map(np.asarray, replicate(put_batch(batch, experiment.mesh)))
    return batch, loader.batch_indices(epoch, number) if hasattr(loader, "batch_indices") else None


def non_finite_field(batch, examples=None):
    """Returns "the inputs of example 37 are not finite (nan at [0, 3])", or "".

    Args:
        batch: a dict of trees of (batch, ...) arrays on the host.
        examples: (batch,) indices in the data set; None: rows of the batch are counted.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        field = jax.tree_util.keystr(path, simple=True, separator=".")
        if found := non_finite_rows(leaf, examples):
            return f"the {field} of {found}"
    return ""


def non_finite_rows(values, examples=None):
    """Returns "example 37 are not finite (nan at [0, 3])" of a (batch, ...) array, or ""."""
    values = np.asarray(values)
    if values.dtype.kind not in "fcV" or not values.ndim:  # V: bfloat16 and its like
        return ""
    bad = ~np.isfinite(values)
    rows = np.flatnonzero(bad.reshape(len(bad), -1).any(1))
    if not len(rows):
        return ""
    places = np.argwhere(bad[rows[0]])
    at = f" at {places[0].tolist()}" if values.ndim > 1 else ""
    value = values[(rows[0], *places[0])] if values.ndim > 1 else values[rows[0]]
    kind = "row {} of the batch" if examples is None else "example {}"
    names = list(dict.fromkeys((rows if examples is None else np.asarray(examples)[rows]).tolist()))
    others = ", ".join(map(str, names[1:LISTED])) + ", ..." * (len(names) > LISTED)
    also = f"; so are those of {others}" if len(names) > 1 else ""
    return f"{kind.format(names[0])} are not finite ({value}{at}{also})"


def non_finite_parameter(params):
    """Returns the path of the first parameter that is not finite, or ""."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not np.isfinite(np.asarray(leaf, np.float64)).all():
            return jax.tree_util.keystr(path, simple=True, separator="/")
    return ""
