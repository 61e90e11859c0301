"""Batch transforms (`data_loader.augment`): what happens to a batch in training, on the device.

A transform is `f(batch, *, key) -> batch`, the batch being {"inputs", "targets", "weight"}, or
`f(inputs, *, key) -> inputs`, which leaves targets and weight as they are. The name of the first
argument tells which: `batch`, or anything else.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from training.common.measure import FunctionError
from training.config import HOMES
from training.engine.binding import bind, parameters_of
from utils import UserError, resolve, signature_of

FIELDS = ("inputs", "targets", "weight")
FORMS = (
    "a function of a batch, f(batch, *, key), is given inputs, targets and weight, and returns "
    "them; one of the inputs alone, f(inputs, *, key), returns the inputs"
)


class Transform(NamedTuple):
    """A function of the config, its arguments bound."""

    function: Any  # (batch, key=) -> batch, or (inputs, key=) -> inputs
    where: str  # its place in the config, and its name
    of_batch: bool
    takes_classes: bool  # asks for `classes`, the number of classes, which the config does not give


class Augment(NamedTuple):
    """All transforms, one after the other: `augment(batch, key) -> batch`."""

    transforms: list
    classes: int | None = None  # of the training data

    def __call__(self, batch, key):
        """Returns a batch as the network is trained with it; `key` is that of the update."""
        results = [batch, *(after for _, after in self.steps(batch, key))]
        return results[-1]

    def steps(self, batch, key):
        """Yields (place in the config, batch) after each transform."""
        key, _ = jax.random.split(key)  # the other half is the network's
        for index, one in enumerate(self.transforms):
            own = key if len(self.transforms) == 1 else jax.random.fold_in(key, index)
            batch = _apply(one, batch, own, self.classes)
            yield one.where, batch


def bind_transforms(loaders, source):
    """Returns the Transforms of a config's section `data_loader`.

    Raises:
        UserError: a function has another form, or its arguments do not fit.
    """
    transforms = []
    for place, named in loaders.transforms():
        where = f"{source}: data_loader.{place}"
        function = resolve(named.name, HOMES["transform"], f"{where}.name")
        _check_form(function, named, where)
        takes_classes = "classes" in parameters_of(function) and "classes" not in named.args
        keywords = ("key", "classes") if takes_classes else ("key",)
        bound = bind(named, "transform", where, 1, keywords)
        of_batch = parameters_of(function)[:1] == ["batch"]
        transforms.append(Transform(bound, f"{where}: {named.name}", of_batch, takes_classes))
    return transforms


def bind_preprocess(loaders, source):
    """Returns the preprocessing of a config's section `data_loader`, `inputs -> inputs`, or None.

    Raises:
        UserError: it is a batch transform, or its arguments do not fit.
    """
    named = loaders.preprocess
    if named is None:
        return None
    where = f"{source}: data_loader.preprocess"
    function = resolve(named.name, HOMES["transform"], f"{where}.name")
    names = parameters_of(function)
    if names[:1] == ["batch"] or "key" in names:
        raise UserError(
            f"{where}: {named.name} takes {', '.join(names)}; expected a function of the inputs "
            "alone, which evaluation and exports call as well. What only training does is in "
            "data_loader.augment"
        )
    return bind(named, "transform", where, 1)


def augmented(gradients, augment):
    """Returns `gradients` of a batch that is augmented first."""

    def of_augmented(params, batch, key, **named):
        return gradients(params, augment(batch, key), key, **named)

    return of_augmented


def _check_form(function, named, where):
    """Refuses a function that needs something that neither the engine nor the config gives it."""
    signature, name = signature_of(function), named.name
    if signature is None:
        return
    kinds = list(signature.parameters.values())
    if not kinds or kinds[0].kind not in (kinds[0].POSITIONAL_ONLY, kinds[0].POSITIONAL_OR_KEYWORD,
                                          kinds[0].VAR_POSITIONAL):  # fmt: skip
        raise UserError(f"{where}: {name}{signature} has no first argument; {FORMS}")
    if kinds[0].name == "key" or "key" not in signature.parameters:
        raise UserError(
            f"{where}.name: {name}{signature}: takes no 'key' after the first argument; {FORMS}. "
            "What is not random belongs in data_loader.preprocess"
        )
    given = (*named.args, "key", "classes")
    missing = [
        one.name
        for one in kinds[1:]
        if one.default is one.empty
        and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        and one.name not in given
    ]
    if missing:
        raise UserError(
            f"{where}: {name}{signature}: nothing gives {missing[0]!r} a value. If it is a setting,"
            f" write it in {where.partition(': ')[2]}.args; if it is meant to be the targets: "
            f"{FORMS}"
        )


def _apply(transform, batch, key, classes):
    """Returns what a transform makes of a batch, checked."""
    named = {"key": key}
    if transform.takes_classes:
        named["classes"] = classes
    if transform.of_batch:
        result = transform.function(batch, **named)
        _check_batch(batch, result, transform.where)
        return result
    try:
        inputs = transform.function(batch["inputs"], **named)
    except FunctionError as error:
        if isinstance(error.__cause__, TypeError | LookupError):
            raise FunctionError(f"{error}. Note: {FORMS}") from error
        raise
    if isinstance(inputs, dict) and {"inputs", "targets"} & inputs.keys():
        raise FunctionError(f"{transform.where} returned a batch, but was given inputs: {FORMS}")
    result = batch | {"inputs": inputs}
    _check_batch(batch, result, transform.where)
    return result


def _check_batch(before, after, where):
    """Refuses what is not a batch of as many examples, with a weight as it was."""
    if not isinstance(after, dict) or not {*FIELDS} <= after.keys():
        got = f"a dict with the keys {sorted(after)}" if isinstance(after, dict) else _type(after)
        raise FunctionError(
            f"{where} returned {got}; expected the batch with 'inputs', 'targets' and 'weight', as "
            'in: return batch | {"inputs": x}'
        )
    count = len(before["weight"])
    for field in FIELDS[:2]:
        leaves = jax.tree.leaves(after[field], is_leaf=lambda leaf: leaf is None)
        bad = [leaf for leaf in leaves or [None] if np.shape(leaf)[:1] != (count,)]
        if bad:
            raise FunctionError(
                f"{where} returned {field} {_type(bad[0])}; expected arrays of the {count} "
                "examples of the batch, (batch, ...)"
            )
    types = [(np.shape(one["weight"]), getattr(one["weight"], "dtype", None))
             for one in (before, after)]  # fmt: skip
    if types[0] != types[1]:
        raise FunctionError(
            f"{where} returned weight {_type(after['weight'])}, which was "
            f"{_type(before['weight'])}; expected the same shape and type. Multiply it by 0 where "
            "an example is to be left out"
        )


def _type(value):
    """ "float32 (128, 10)", or the name of a class."""
    if hasattr(value, "shape"):
        return f"{value.dtype} {value.shape}"
    return "None" if value is None else f"a {type(value).__name__}"
