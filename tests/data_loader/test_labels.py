"""A label is a class, or its example is named: whatever the labels' type, values and shape."""

import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loader.dataloader import DataLoader
from data_loader.device_cache import cache_on_device, gather
from data_loader.labels import ClassNumbers
from tests.helpers.project import by_set
from training import loss, metrics
from training.common.measure import Cells, weighted_sum
from training.engine.user_code import wrap_user_function
from utils import UserError

CLASSES = 4
WHOLE = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


class Labelled:
    """Examples with any targets; `whole` reads a batch at a time."""

    def __init__(self, targets):
        self.targets = targets

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return np.float32([index]), self.targets[index]


class WholeLabelled(Labelled):
    def __getitems__(self, indices):
        return indices[:, None].astype(np.float32), self.targets[indices]


class InMemory(Labelled):
    """Its labels can be looked at without reading it."""

    def __init__(self, targets):
        super().__init__(targets)
        self.labels = np.asarray(targets)


def read_all(loader, classes):
    loader.expect_classes(classes)
    return list(loader.batches(1))


def targets_of(batches):
    return np.concatenate([np.asarray(gather(batch["targets"])) for batch in batches])


def odd_labels():
    """What `make` makes labels of, such as a network can learn and such as none can."""
    values = st.lists(st.integers(0, CLASSES - 1), min_size=6, max_size=6)
    odd = st.sampled_from([-1, -100, CLASSES, 127, 128, 255, 256, 2**31, 2**32 + 1, 2**63, np.nan,
                           np.inf, 0.5, "cat", None, "1", b"1", (1, 2), [], {}])  # fmt: skip
    change = st.none() | st.tuples(st.integers(0, 5), odd)
    dtypes = st.sampled_from((*WHOLE, "float16", "float32", "float64", "object", "U", "S", "list"))
    shape = st.sampled_from(["plain", "column", "one-hot", "masked", "0-d", "ragged", "twice"])
    return st.tuples(values, change, dtypes, shape)


def make(values, change, dtype, shape):
    """The labels as a user might bring them; None where NumPy itself refuses to make them."""
    values = list(values)
    if change is not None:
        values[change[0]] = change[1]
    try:
        with np.errstate(all="ignore"):
            array = values if dtype == "list" else np.array(values, dtype)
    except (ValueError, TypeError, OverflowError):
        array = np.empty(6, object)
        array[:] = values
    if isinstance(array, list) or array.shape != (6,) or array.dtype.kind not in "biuf":
        return array
    if shape == "one-hot":
        return np.eye(CLASSES)[np.arange(6) % CLASSES].astype(array.dtype)
    changed = {"column": array[:, None], "masked": np.ma.array(array, mask=[0, 1, 0, 0, 1, 0]),
               "0-d": [array[0:1].reshape(())] * 6, "ragged": [array[:1], array[:2]] * 3,
               "twice": np.stack([array, array], 1)}  # fmt: skip
    return changed.get(shape, array)


FUNCTIONS = (loss.cross_entropy, metrics.accuracy, metrics.confusion_matrix)


@given(odd_labels(), st.sampled_from([1, 3, CLASSES, 6]), st.booleans(), st.sampled_from(FUNCTIONS))
@settings(max_examples=by_set(60, 700))
def test_labels_are_counted_right_or_refused_in_words(odd, batch, kind, function):
    targets = make(*odd)
    logits = np.random.default_rng(0).normal(size=(6, CLASSES)).astype(np.float32)
    measured = wrap_user_function(function, "it", "metric", "training.metrics.0")
    whole = kind and isinstance(targets, np.ndarray)
    total = 0
    try:
        loader = DataLoader((WholeLabelled if whole else Labelled)(targets), batch)
        loader.expect_classes(CLASSES)
        for one in loader.batches(1):
            rows = np.asarray(one["inputs"])[:, 0].astype(int)
            values = measured(logits[rows], one["targets"])
            statistic = weighted_sum(values, one["weight"], True)[0]
            if isinstance(statistic, Cells):  # of each example
                statistic = statistic.dense().sum(0)
            total = total + np.asarray(statistic, np.float64)
    except UserError:
        return
    right = np.array([int(one) for one in np.asarray(targets, object).ravel()])
    assert right.shape == (6,)
    assert not np.ma.is_masked(targets)
    assert all(0 <= one < CLASSES for one in right)
    np.testing.assert_allclose(total, expected(function, logits, right), rtol=1e-5)


def expected(function, logits, labels):
    """What a metric sums to, by NumPy."""
    if function is metrics.accuracy:
        return (logits.argmax(1) == labels).sum()
    if function is loss.cross_entropy:
        logits = logits.astype(np.float64)
        return (np.log(np.exp(logits).sum(1)) - logits[np.arange(6), labels]).sum()
    counts = np.zeros((CLASSES, CLASSES))
    np.add.at(counts, (labels, logits.argmax(1)), 1)
    return counts


@pytest.mark.parametrize("dtype", WHOLE[1:])
@pytest.mark.parametrize("kind", [Labelled, WholeLabelled, InMemory])
def test_a_label_that_is_no_class_is_named_with_its_example_and_the_range(kind, dtype):
    labels = np.zeros(40, dtype)
    labels[33] = 10
    loader = DataLoader(kind(labels), 8, shuffle=True)
    loader.split = "test"
    said = re.escape(f"the test split: example 33 has the label 10 ({dtype}), expected a whole "
                     "number from 0 to 9")  # fmt: skip
    with pytest.raises(UserError, match=said):
        read_all(loader, 10)
    loader.expect_classes(11)
    np.testing.assert_array_equal(np.sort(targets_of(loader.batches(1))), np.sort(labels))


def test_what_is_in_memory_is_looked_at_before_the_first_batch():
    labels = np.arange(2000) % 10
    labels[1777] = 10
    with pytest.raises(UserError, match="the training data: example 1777 has the label 10"):
        DataLoader(InMemory(labels), 8).expect_classes(10)
    cached = cache_on_device({"test": DataLoader(Labelled(labels), 8)}, True, None, "here")["test"]
    with pytest.raises(UserError, match="example 1777 has the label 10"):
        cached.expect_classes(10)


def test_labels_that_are_not_the_targets_are_of_no_concern():
    """A data set may keep labels that count from 1 and return those that count from 0."""
    dataset = InMemory(np.arange(20) % 5)
    dataset.labels = dataset.labels + 1
    loader = DataLoader(dataset, 4)
    loader.expect_classes(5)
    np.testing.assert_array_equal(targets_of(loader.batches(1)), np.arange(20) % 5)


def test_only_the_examples_of_a_split_are_looked_at():
    labels = np.zeros(100, np.int32)
    loader = DataLoader(InMemory(labels), 10, validation_split=0.2)
    held_out = loader.validation()
    held_out.split = "validation"
    (batch, *_) = held_out.batches(1)
    labels[int(batch["inputs"][3, 0])] = 7
    loader.expect_classes(5)
    with pytest.raises(UserError, match=r"the validation split: example \d+ has the label 7"):
        held_out.expect_classes(5)


def test_the_way_out_fits_what_is_wrong():
    for label, words in [(-100, "gets the weight 0"), (4, "Count classes from 0"),
                         (2**40, "argument `classes`")]:  # fmt: skip
        with pytest.raises(UserError, match=words):
            DataLoader(Labelled(np.array([0, label])), 2).expect_classes(4)


# Weight 0 --------------------------------------------------------------------------------------


def ignoring(samples):
    inputs, targets = map(np.stack, zip(*samples, strict=True))
    return {"inputs": inputs, "targets": targets, "weight": (targets != -100).astype(np.float32)}


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("shape", [(20,), (20, 3)])
def test_what_has_the_weight_0_may_have_any_label(cached, shape):
    labels = np.random.default_rng(0).integers(0, 4, shape)
    labels[::4] = -100
    loader = DataLoader(Labelled(labels), 8, collate=ignoring)
    if cached:
        loader = cache_on_device({"train": loader}, True, None, "here")["train"]
    loader.expect_classes(4)
    batches = list(loader.batches(1))
    np.testing.assert_array_equal(targets_of(batches)[:20], np.where(labels == -100, 0, labels))
    weight = np.concatenate([one["weight"] for one in batches])[:20]
    np.testing.assert_array_equal(weight, labels != -100)


def test_missing_numbers_of_weight_0_leave_loss_and_gradient_finite():
    targets = np.array([1.0, np.nan, 3.0, np.nan], np.float32)[:, None]

    def collate(samples):
        inputs, targets = map(np.stack, zip(*samples, strict=True))
        weight = np.isfinite(targets[:, 0]).astype(np.float32)
        return {"inputs": inputs, "targets": targets, "weight": weight}

    (batch,) = DataLoader(Labelled(targets), 4, collate=collate).batches(1)

    def total(scale):
        values = loss.mean_squared_error(scale * batch["inputs"], batch["targets"])
        return weighted_sum(values, batch["weight"])[0]

    value, gradient = jax.value_and_grad(total)(1.0)
    assert (value, gradient) == ((0 - 1) ** 2 + (2 - 3) ** 2, 2 * 0 * -1 + 2 * 2 * -1)


@pytest.mark.parametrize("weight", [-1.0, np.nan])
def test_a_weight_that_is_no_weight_is_refused(weight):
    def collate(samples):
        inputs, targets = map(np.stack, zip(*samples, strict=True))
        return {"inputs": inputs, "targets": targets, "weight": np.float32([1, weight])}

    with pytest.raises(UserError, match=f"a weight of a batch is {weight}"):
        list(DataLoader(Labelled(np.zeros(2, int)), 2, collate=collate).batches(1))


# The loader's `classes` --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array(["cat", "dog", "cat", "owl"]), ["cat", "dog", "owl"]),
        (np.array([b"cat", b"dog", b"cat", b"owl"]), ["cat", "dog", "owl"]),
        (np.array(["cat", "dog", "cat", "owl"], object), ["cat", "dog", "owl"]),
        (np.array([1, 2, 1, 26], np.uint8), [1, 2, 26]),
        (np.array([1, 2, 1, 26], object), [1, 2, 26]),
        (np.array([1.0, 2.0, 1.0, 26.0]), {"1": "a", "2": "b", "26": "z"}),
        (np.array(["1", "2", "1", "26"]), [1, 2, 26]),
        (np.array([-1, 1, -1, 5]), [-1, 1, 5]),
    ],
)
def test_values_of_labels_are_numbered_in_the_order_of_their_classes(labels, classes):
    loader = DataLoader(Labelled(labels), 2, classes=classes)
    loader.expect_classes(3)
    targets = targets_of(loader.batches(1))
    assert targets.dtype == np.int32
    np.testing.assert_array_equal(targets, [0, 1, 0, 2])
    names = list(classes.values()) if isinstance(classes, dict) else [str(one) for one in classes]
    assert loader.classes == names


def test_a_value_that_is_none_of_the_classes_is_named():
    loader = DataLoader(Labelled(np.array(["cat", "dgo"])), 2, classes=["cat", "dog"])
    said = "example 1 has the label 'dgo', which is none of the loader's `classes`: 'cat', 'dog'; "
    with pytest.raises(UserError, match=said + "did you mean 'dog'"):
        list(loader.batches(1))
    with pytest.raises(UserError, match="example 3 has the label 26"):
        DataLoader(InMemory(np.array([1, 2, 1, 26])), 1, classes=[1, 2]).expect_classes(2)


@pytest.mark.parametrize("classes", ["cat", [], {}, [1.5], ["a", "a"], [1, "1"], [None], 3])
def test_classes_that_are_no_values_are_refused(classes):
    with pytest.raises(UserError, match="DataLoader: classes"):
        ClassNumbers(classes)


def test_texts_without_classes_are_refused_with_the_way_out():
    with pytest.raises(UserError, match=r"Example 0 has 'dog'.*`classes`.*\['cat', 'dog'\]"):
        list(DataLoader(Labelled(np.array(["dog", "cat"])), 2).batches(1))
