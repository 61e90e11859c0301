"""Judges what was read: what is wrong, what is worth a look, and how to fix it."""

import importlib.util
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_loader.inspect.duplicates import equal_inputs, lookalikes
from data_loader.inspect.reading import Split
from data_loader.labels import names_of_classes
from utils import printable

SHOWN = 5  # examples that a finding names
IMBALANCE = 10  # times as many examples of a class as of another, from which on it is mentioned
OTHER_RANGE = 20  # times the largest value of another split, from which on the scale differs
FAR = 0.1  # of a standard deviation, by which `normalize` may miss the mean
WRONG, NOTE = "wrong", "note"  # training or its figures would be wrong; worth a look


class Finding(NamedTuple):
    """Something about the data.

    Attributes:
        level: WRONG or NOTE.
        text: what, and what to do.
        examples: [(split, index)] to show.
    """

    level: str
    text: str
    examples: Sequence = ()


def judge(splits: list, preprocess: dict | None = None) -> list[Finding]:
    """Returns the findings about the splits of a config, the wrong ones first.

    Args:
        splits: what `read_split` returned, the training split first.
        preprocess: "name" and "args" of `data_loader.preprocess`, to hold against the data.
    """
    found = []
    for split in splits:
        found += [*_unreadable(split), *_not_finite(split), *_labels(split)]
    found += [
        *_left_out(splits),
        *_classes(splits),
        *_fields(splits),
        *_twins(splits),
        *_lookalikes(splits),
    ]
    found += [*_balance(splits[0]), *_normalize(splits[0], preprocess)]
    return sorted(found, key=lambda one: one.level == NOTE)


def suggested_normalize(split: Split) -> dict | None:
    """Returns mean and std, a number per channel, of a split's images in 0 ... 1, else None."""
    levels = getattr(split.fields.get("inputs"), "levels", None)
    if levels is None:
        return None
    share, values = levels / levels.sum(1, keepdims=True), np.arange(256) / 255
    mean = share @ values
    std = np.sqrt(np.maximum(share @ values**2 - mean**2, 0))
    return {"mean": mean.round(4).tolist(), "std": std.round(4).tolist()}


def class_names(splits: list) -> dict:
    """Returns {label: name} of the classes of a classification, else nothing."""
    labels = {label for split in splits for label in split.labels.values()}
    if not labels:
        return {}
    names = next((found for one in splits if (found := names_of_classes(one.dataset))), None)
    if names is None or not all(isinstance(label, int) for label in labels):
        return {label: printable(label) for label in sorted(labels, key=str)}
    known = dict(enumerate(map(printable, names)))
    return known | {label: str(label) for label in sorted(labels - known.keys())}


def _unreadable(split):
    if split.unreadable:
        reasons = [f"{split.name_of(i)}: {why}" for i, why in split.unreadable.items()]
        text = f"{split.name}: {_count(reasons, 'example')} cannot be read: {_some(reasons)}"
        yield Finding(WRONG, f"{text}. Replace or delete what is damaged")
    if not split.examples:
        yield Finding(WRONG, f"{split.name}: there is no example")


def _left_out(splits):
    reasons = {}  # the splits of one folder leave out the same
    for split in splits:
        for reason, paths in getattr(split.dataset, "left_out", {}).items():
            reasons.setdefault(reason, dict.fromkeys(paths)).update(dict.fromkeys(paths))
    for reason, paths in reasons.items():
        yield Finding(NOTE, f"{_count(paths, 'file')} not used ({reason}): {_some(paths)}")


def _not_finite(split):
    for name, field in split.fields.items():
        if field.not_finite:
            yield Finding(
                WRONG,
                f"{split.name}: {name} of {_count(field.not_finite, 'example')} has values that "
                f"are not finite (NaN or infinite): {_some(map(split.name_of, field.not_finite))}",
                [(split.name, index) for index in field.not_finite[:SHOWN]],
            )


def _labels(split):
    names, labels = names_of_classes(split.dataset), split.labels
    if names is None or not all(isinstance(label, int) for label in labels.values()):
        return
    outside = {i: label for i, label in labels.items() if not 0 <= label < len(names)}
    if outside:
        texts = [f"{label} ({split.name_of(i)})" for i, label in outside.items()]
        yield Finding(
            WRONG,
            f"{split.name}: {_count(outside, 'label')} outside the classes, which go from 0 to "
            f"{len(names) - 1}: {_some(texts)}. Count classes from 0; an example that is not to "
            "count has the weight 0",
            [(split.name, index) for index in list(outside)[:SHOWN]],
        )


def _classes(splits):
    classes_of = {split.name: names_of_classes(split.dataset) for split in splits}
    named = [(name, list(classes)) for name, classes in classes_of.items() if classes is not None]
    for name, classes in named[1:]:
        first, others = named[0]
        if classes != others:
            yield Finding(
                WRONG,
                f"{name} has the classes {_some(classes)}, {first} has "
                f"{_some(others)}: a label means another class in each. "
                "Give both the same list as `classes`",
            )
    names = class_names(splits)
    for split in splits:
        present = set(split.labels.values())
        missing = [name for label, name in names.items() if label not in present]
        if missing and split.labels:
            level = WRONG if split.name == "train" else NOTE
            text = f"{split.name}: no example of {_count(missing, 'class')}: {_some(missing)}"
            yield Finding(level, text)


def _fields(splits):
    first = splits[0]
    for split in splits[1:]:
        for name in sorted(first.fields.keys() | split.fields.keys()):
            ours, theirs = first.fields.get(name), split.fields.get(name)
            if ours is None or theirs is None:
                if first.rows and split.rows:
                    there = first.name if ours else split.name
                    yield Finding(WRONG, f"{name} is in {there} alone")
                continue
            where = f"{name} of {first.name} and {split.name}"
            if set(ours.dtypes) != set(theirs.dtypes):
                types = f"{_some(ours.dtypes)} and {_some(theirs.dtypes)}"
                yield Finding(WRONG, f"{where}: the types differ, {types}")
            fixed = len(ours.shapes) == len(theirs.shapes) == 1
            if fixed and ours.shapes.keys() != theirs.shapes.keys():
                shapes = f"{_some(ours.shapes)} and {_some(theirs.shapes)}"
                yield Finding(WRONG, f"{where}: the shapes differ, {shapes}")
            yield from _ranges(where, ours, theirs)


def _ranges(where, ours, theirs):
    largest = [max(abs(one.low), abs(one.high)) for one in (ours, theirs)]
    if min(largest) > 0 and OTHER_RANGE * min(largest) < max(largest) < math.inf:
        yield Finding(
            WRONG,
            f"{where}: the values go from {ours.low:.4g} to {ours.high:.4g} in one and from "
            f"{theirs.low:.4g} to {theirs.high:.4g} in the other; are both scaled alike?",
        )


def _twins(splits):
    groups, named = equal_inputs(splits), {split.name: split for split in splits}
    # Equal rows of a table of few values are no mistake; equal images are the same image.
    images = getattr(splits[0].fields.get("inputs"), "levels", None) is not None
    level = WRONG if images else NOTE
    across = [one for one in groups if len({name for name, _ in one.members}) > 1]
    if across:
        yield Finding(
            level,
            f"{_count(across, 'input')} in more than one split, so that what is tested was trained "
            f"on: {_some(_joined(one, named) for one in across)}. Remove them from one",
            [member for one in across[:SHOWN] for member in one.members[:2]],
        )
    torn = [one for one in groups if len(one.labels) > 1]
    if torn:
        names = class_names(splits)
        texts = (
            f"{_joined(one, named)} ({' and '.join(names[x] for x in sorted(one.labels, key=str))})"
            for one in torn
        )
        text = f"{_count(torn, 'input')} with different labels: {_some(texts)}. Which is right?"
        yield Finding(level, text, [member for one in torn[:SHOWN] for member in one.members[:2]])
    within = sum(len(one.members) - 1 for one in groups) - len(across)
    if within > 0:
        yield Finding(NOTE, f"{within:,} repeated within a split")


def _lookalikes(splits):
    named = {split.name: split for split in splits}
    if splits[0].formats and importlib.util.find_spec("imagehash") is None:
        yield Finding(NOTE, "images that look the same are not searched for: pip install imagehash")
    pairs = lookalikes(splits)
    if pairs:
        texts = (f"{_text(a, named)} and {_text(b, named)}" for a, b in pairs)
        yield Finding(
            NOTE,
            f"{_count(pairs, 'pair')} of images in two splits that look the same: {_some(texts)}",
            [member for pair in pairs[:SHOWN] for member in pair],
        )


def _balance(split):
    counts = Counter(split.labels.values())
    if len(counts) > 1:
        (most, high), (least, low) = counts.most_common()[0], counts.most_common()[-1]
        if high >= IMBALANCE * low:
            names = class_names([split])
            yield Finding(
                NOTE,
                f"{split.name}: {names[most]} has {high} examples and {names[least]} {low}. "
                '`training.class_weights: "auto"` or the loader\'s `"sampler": "balanced"` lets '
                "each class count alike",
            )


def _normalize(split, preprocess):
    measured = suggested_normalize(split)
    if not measured or not preprocess or preprocess["name"].rpartition(":")[2] != "normalize":
        return
    given = [np.broadcast_to(preprocess["args"].get(k, 0), len(measured[k])) for k in measured]
    mean, std = (np.array(measured[key]) for key in ("mean", "std"))
    scale = np.maximum(std, 1e-3)
    if (abs(given[0] - mean) > FAR * scale).any() or (abs(given[1] - std) > FAR * scale).any():
        text = f"`normalize` could have the mean {measured['mean']} and the std {measured['std']}"
        yield Finding(NOTE, f"{text} of the training images")


def _joined(twins, named):
    return " = ".join(_text(member, named) for member in twins.members[:3])


def _text(member, named):
    name, index = member
    return f"{name} {named[name].name_of(index)}"


def _count(items, noun):
    """Returns "1 file" or "3 files"."""
    plural = {"class": "classes"}.get(noun, f"{noun}s")
    return f"{len(items):,} {noun if len(items) == 1 else plural}"


def _some(texts):
    texts = [printable(text) for text in texts]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
