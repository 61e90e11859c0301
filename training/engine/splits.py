"""The splits of the data, compared with what the network takes and with each other."""

import contextlib
import logging

import jax
import numpy as np

from data_loader.device_cache import gather
from data_loader.labels import names_of_classes
from training.engine.user_code import explained, reading_error
from utils import UserError

NUMBERS = "biufcV"  # kinds of dtypes that JAX takes; V: bfloat16 and its like
CLASSES = 5  # whose names a message shows
SCALE = 20  # times larger numbers in one split than in another are suspicious
LOG = logging.getLogger("main")


def stored_batch(experiment, split="train"):
    """Returns the first batch of a split, as the loader has it: it may hold TableViews."""
    for epoch in (1, 2):  # of an epoch that is resumed nothing may be left
        batches = experiment.loaders[split].batches(epoch)
        with naming(split):
            try:
                batch = next(batches, None)
            finally:
                batches.close()
        if batch is not None:
            break
    check_numbers(batch, split, experiment.loaders[split])
    return batch


def check_numbers(batch, split, loader=None, epoch=1, number=0, found_in="a batch"):
    """Refuses a batch of text or objects, and names the example where `loader` tells it."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if dtype.kind not in NUMBERS:
            known = (
                loader.batch_indices(epoch, number) if hasattr(loader, "batch_indices") else None
            )
            for index in () if known is None else known:
                one = loader.read(np.array([index]))
                check_numbers(one, split, found_in=f"example {index}")
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            data = "training data" if split == "train" else f"{split} split"
            raise UserError(
                f"the {data}: {name} of {found_in} are {dtype}; expected numbers. Change the "
                "data set, or name a `collate` that makes numbers of them"
            )


def check_splits(experiment, params, train_batch):
    """Tries a batch of every split but the training one, without computing anything.

    Args:
        experiment: the Experiment.
        params: of the network, as shapes.
        train_batch: a batch of the training split.

    Raises:
        UserError: a split does not fit the network, a loss or a metric, or the training split.
    """
    train = experiment.loaders["train"]
    first = _fields(train_batch)
    _report_missing_classes("train", train, train)
    for split, loader in experiment.loaders.items():
        if split == "train":
            continue
        batch = stored_batch(experiment, split)
        other = _fields(batch)
        with naming(split):
            _check_classes(train, loader)
            _check_fields(first, other)
            with explained():
                jax.eval_shape(experiment.evaluate, params, batch)
        _compare_shapes(split, loader, first, other)
        _compare_scales(split, first, other)
        _report_missing_classes(split, loader, train)


@contextlib.contextmanager
def naming(split):
    """Names the split, if it is not the training one, in errors of its data."""
    try:
        yield
    except Exception as error:
        found = reading_error(error) or error
        named = split == "train" or str(found).startswith(f"the {split} split")
        if not isinstance(found, UserError) or (named and found is error):
            raise
        raise type(found)(str(found) if named else f"the {split} split: {found}") from error


def leakage(monitor):
    """Returns what it means that the best epoch is chosen by the test set, or ""."""
    sense, _, name = str(monitor).partition(" ")
    if not name.startswith("test_"):
        return ""
    return (
        f"training.monitor is {monitor!r}: the best epoch is chosen by the test set, so that its "
        "results there are better than those on new data. Hold a part of the training data out by "
        "data_loader.train.args.validation_split=0.1 and choose by that, training.monitor="
        f"'{sense} validation_{name.removeprefix('test_')}', or keep the last epoch: null"
    )


def _fields(batch):
    """{name: array on the host} of a batch's inputs and targets."""
    both = {name: gather(batch[name]) for name in ("inputs", "targets")}
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(both)
    }


def _check_fields(train, other):
    """Refuses fields, axes and kinds of numbers that the training split has not."""
    if train.keys() != other.keys():
        names = [", ".join(fields) for fields in (train, other)]
        raise UserError(f"a batch has {names[1]}, one of the training split has {names[0]}")
    for name in train:
        shapes = [array.shape[1:] for array in (train[name], other[name])]
        if len(shapes[0]) != len(shapes[1]):
            raise UserError(
                f"the {name} of an example have the shape {shapes[1]}, those of the training split "
                f"{shapes[0]}; expected as many axes"
            )
        dtypes = [array.dtype for array in (train[name], other[name])]
        kinds = {"float" if dtype.kind in "fcV" else "integer" for dtype in dtypes}
        if len(kinds) > 1:
            raise UserError(
                f"the {name} are {dtypes[1]}, those of the training split {dtypes[0]}; expected "
                "the same. Let the data set convert them, such as by `.astype(numpy.float32)`"
            )


def _check_classes(train, other):
    """Refuses classes that have another label in one split than in the other."""
    names = [list(map(str, _classes(one) or [])) for one in (train, other)]
    for label, (expected, got) in enumerate(zip(*names, strict=False)):
        if expected != got:
            raise UserError(
                f"its classes are {_shown(names[1])}, those of the training split "
                f"{_shown(names[0])}: label {label} is {got!r} in one and {expected!r} in the "
                "other. Give both data sets the same classes in the same order (ImageFolder: "
                "`classes`)"
            )


def _compare_shapes(split, loader, train, other):
    """Warns of examples with another shape, unless a `collate` may pad each batch to its own."""
    if getattr(getattr(loader, "collate", None), "__module__", "") != "data_loader.base":
        return
    for name in train:
        shapes = [array.shape[1:] for array in (train[name], other[name])]
        if shapes[0] != shapes[1]:
            LOG.warning("The %s of an example have the shape %s in the training split, but %s in "
                        "the %s split", name, *shapes, split)  # fmt: skip


def _compare_scales(split, train, other):
    """Warns of numbers that are many times larger in one split than in the other."""
    for name in train:
        pair = [np.asarray(array) for array in (train[name], other[name])]
        pair = [array.astype(np.float32) for array in pair if _has_scale(name, array)]
        pair = [finite for array in pair if (finite := array[np.isfinite(array)]).any()]
        if len(pair) < 2:
            continue
        ratios = [np.abs(pair[0]).max() / np.abs(pair[1]).max()]
        ratios += [np.abs(pair[0]).mean() / np.abs(pair[1]).mean()]
        if max(ratios) <= 1 / SCALE or min(ratios) >= SCALE:
            ranges = [f"from {array.min():.4g} to {array.max():.4g}" for array in pair]
            LOG.warning("The %s of a batch of the training split go %s, those of the %s split %s: "
                        "are both prepared alike?", name, ranges[0], split, ranges[1])  # fmt: skip


def _has_scale(name, array):
    """Whether an array holds measurements or pixels, not classes or tokens."""
    return array.dtype.kind in "fV" or (array.dtype == np.uint8 and name.startswith("inputs"))


def _report_missing_classes(split, loader, train):
    """Warns of classes that no example of a split has."""
    labels, known = (
        one.known_labels() if hasattr(one, "known_labels") else None for one in (loader, train)
    )
    if labels is None or known is None:
        return
    names = _classes(loader)
    present, expected = set(np.unique(labels).tolist()), np.unique(known).tolist()
    if names is not None and labels.dtype.kind in "iu":
        missing = [name for label, name in enumerate(names) if label not in present]
    elif 2 * len(expected) > len(known):  # numbers rather than classes
        return
    else:
        missing = [one for one in expected if one not in present]
    if missing:
        so = "it cannot be learned" if split == "train" else "its results say nothing of it"
        LOG.warning("The %s split has no example of %d of the classes (%s): %s", split,
                    len(missing), _shown(missing), so)  # fmt: skip


def _classes(loader):
    found = getattr(loader, "classes", None)
    return names_of_classes(loader.dataset) if found is None else found


def _shown(names):
    return ", ".join(map(str, names[:CLASSES])) + ", ..." * (len(names) > CLASSES)
