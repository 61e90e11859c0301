"""Parts of the network that the config treats in a way of their own, named by path.

Frozen parts (`training.freeze`), the rates at which parts learn (`learning_rates`, `layer_decay`),
and layers whose values are computed again in the backward pass (`remat`). How paths and globs are
written: `training.common.trees.fits`.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax

from training.common.measure import asked_of
from training.common.trees import divide, expect_part, fits, merge, named_leaves, split
from utils import UserError


class Parts(NamedTuple):
    """What the config says about parts of the network; see the keys in training/config.py."""

    freeze: tuple = ()
    learning_rates: Any = {}  # noqa: RUF012 -- never changed
    layer_decay: float | None = None
    remat: tuple = ()


def parts_of(settings):
    """Returns the Parts of the config's section `training`."""
    return Parts(
        tuple(settings.freeze), settings.learning_rates, settings.layer_decay, tuple(settings.remat)
    )


def with_layer_options(model, parts):
    """Returns the network, its frozen layers computing as in evaluation, some rematerialised."""
    if not (parts.freeze or parts.remat):
        return model
    from model import modules  # a run has a copy of its own, which may be older

    if not hasattr(modules, "layer_options"):
        raise UserError(
            "training.freeze and training.remat need layer_options of model/modules/core.py, which "
            "the run's own copy does not have; --own-code uses this project's"
        )

    def network(inputs, *, params, key, train):
        options = (functools.partial(fits, paths=paths) for paths in (parts.freeze, parts.remat))
        with modules.layer_options(*options):
            return model(inputs, params=params, key=key, train=train)

    return network


def freeze(params, paths):
    """Returns (the trained parts with their running statistics, the frozen parts), as `split`."""
    frozen, rest = divide(params, lambda name: fits(name, paths, below=True))
    return rest, frozen


def around_frozen(forward, groups, frozen, paths):
    """Returns forward and groups for params without the frozen ones, which they add themselves."""
    if not paths:
        return forward, groups

    def forward_rest(params, inputs, key, train):
        outputs, params = forward(merge(params, frozen), inputs, key, train)
        return outputs, freeze(params, paths)[0]

    def of_all(loss):
        if "params" not in asked_of(loss):
            return loss

        @functools.wraps(loss)
        def loss_of_all(*args, params, **named):
            return loss(*args, params=merge(params, frozen), **named)

        return loss_of_all

    return forward_rest, {
        name: group._replace(loss=of_all(group.loss)) for name, group in groups.items()
    }


def with_rates(groups, rates):
    """Returns optimizer groups whose updates are multiplied, {name of a parameter: multiplier}.

    The optimizer's state is as without: a run can be resumed with other multipliers.
    """

    def scaled(optimizer):
        def update(grads, state, params=None):
            updates, state = optimizer.update(grads, state, params)
            named = {name: one * rates.get(name, 1) for name, one in named_leaves(updates).items()}
            return jax.tree.unflatten(jax.tree.structure(updates), named.values()), state

        return optax.GradientTransformation(optimizer.init, update)

    if not rates:
        return groups
    return {
        name: group._replace(optimizer=scaled(group.optimizer)) for name, group in groups.items()
    }


def multipliers(parts, forward, inputs):
    """Returns {name of a parameter: multiplier of its learning rate}, of those that train.

    Args:
        parts: Parts.
        forward: (params, inputs, key, train) -> (outputs, params).
        inputs: (batch, ...) of the network; only its shape counts.

    Raises:
        UserError: a pattern has nothing to multiply, or the layers have no order to be read.
    """
    if not parts.learning_rates and parts.layer_decay is None:
        return {}
    names, layers = _created(forward, inputs)
    names = [name for name in names if _trains(name, parts)]
    rates = dict.fromkeys(names, 1.0)
    left = list(names)
    for pattern, rate in parts.learning_rates.items():  # the first that fits counts
        where = "training.learning_rates"
        expect_part(pattern, names, where)
        taken = [name for name in left if fits(name, (pattern,), below=True)]
        if not taken:
            raise UserError(
                f"{where}: {pattern!r} has no effect, as patterns before it fit all of its parts, "
                "and the first that fits counts; put it before them"
            )
        rates |= dict.fromkeys(taken, rate)
        left = [name for name in left if name not in taken]
    if parts.layer_decay is not None:
        depths = _depths(names, layers)
        top = max(depths.values())
        for name in names:
            rates[name] *= parts.layer_decay ** (top - depths[_unit(name)])
    return rates


def check_parts(parts, groups, forward, inputs):
    """Refuses paths under which the network has nothing, and freezing all that would be trained."""
    if parts == Parts():
        return
    names, layers = _created(forward, inputs)
    for path in parts.freeze:
        expect_part(path, names, "training.freeze")
    for path in parts.remat:
        if not layers:
            raise UserError(
                f"training.remat: {path!r}: the network names no layers; only those called through "
                "Layers (model/modules/core.py) can be named. For another library's network use "
                "jax.checkpoint in its code (Flax: nn.remat, Haiku: hk.remat)"
            )
        expect_part(path, layers, "training.remat", exact=True)
    for group, one in groups.items():
        mine = [n for n in names if not one.params or fits(n, one.params, below=True)]
        if parts.freeze and not any(_trains(name, parts) for name in mine):
            what = "the network" if len(groups) == 1 else f"optimizer group {group!r}"
            raise UserError(
                f"training.freeze: {', '.join(parts.freeze)} is all of {what}, so nothing is left "
                "to train; expected the paths of some of its parts"
            )
    multipliers(parts, forward, inputs)


def describe(parts, params, rates, seeds=1):
    """Yields lines for the log about what is frozen, and at which rates the parts learn."""
    if parts.freeze:
        sizes = {name: leaf.size for name, leaf in named_leaves(split(params)[0]).items()}
        frozen = [size for name, size in sizes.items() if fits(name, parts.freeze, below=True)]
        yield f"{sum(frozen) // seeds} of them are frozen: {', '.join(parts.freeze)}"
    if rates:
        of_rate = {}
        for name, rate in rates.items():
            alike = all(rates[one] == rate for one in rates if _unit(one) == _unit(name))
            of_rate.setdefault(f"{rate:.3g}", {})[_unit(name) if alike else name] = None
        shown = "; ".join(f"{rate} {', '.join(units)}" for rate, units in of_rate.items())
        yield f"The learning rate is multiplied by: {shown}"


def _created(forward, inputs):
    """Returns the parameters' names and the layers' paths, in the order of the first call."""
    from model.modules import watch_layers

    names, layers = [], []

    def make(inputs):
        with watch_layers(lambda path, output, params: layers.append(path)):
            _, params = forward(None, inputs, jax.random.key(0), False)
        names.extend(_in_order(params))  # behind eval_shape, dicts are sorted

    jax.eval_shape(make, inputs)
    return names, list(dict.fromkeys(layers))


def _in_order(tree, path=()):
    """Yields the leaves' names in the order of the dicts."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _in_order(value, (*path, str(key)))
    else:
        yield from ("/".join((*path, *name.split("/"))).rstrip("/") for name in named_leaves(tree))


def _trains(name, parts):
    return "stats" not in name.split("/") and not fits(name, parts.freeze, below=True)


def _unit(name):
    """Returns the part whose depth a parameter has: "block1" of block1/norm, "blocks/1" of it."""
    first, _, rest = name.partition("/")
    inner = rest.partition("/")[0]
    return f"{first}/{inner}" if inner.isdigit() else first


def _depths(names, layers):
    """Returns {part: depth}, counted along the parts in the order in which they are called.

    A part whose name ends with another number than the numbered part before it is one deeper.
    Parts before the first numbered one have depth 0, those in between that of the numbered one
    before, those after the last are one deeper than it.
    """
    units = list(dict.fromkeys(map(_unit, names)))
    numbers = [re.search(r"\d+$", unit) for unit in units]
    called = [unit for unit in dict.fromkeys(map(_unit, layers)) if unit in units]
    if not any(numbers) or called != [unit for unit in units if unit in called] or not called:
        raise UserError(
            "training.layer_decay: the layers have no order that can be read; expected layers "
            'called through Layers, with numbers at the ends of their names ("block0", "block1"); '
            f"there are {', '.join(units)}. training.learning_rates names multipliers one by one"
        )
    depths, depth, number = {}, 0, None
    last = max(index for index, one in enumerate(numbers) if one)
    for index, (unit, found) in enumerate(zip(units, numbers, strict=True)):
        if (found and found[0] != number) or index == last + 1:
            depth, number = depth + 1, found and found[0]
        depths[unit] = depth
    return depths
