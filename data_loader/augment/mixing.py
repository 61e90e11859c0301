"""Mixes each example with the one before it in the batch; targets become probabilities.

The weight of a mixture is its share of both weights, and its target that of both weighted targets,
so that its loss is as if each half were an example with its part of the weight. An example without
weight, such as padding, is not mixed with any.

Labels, (batch,) integers, become (batch, classes) probabilities; other targets are numbers that are
mixed as they are. `classes` is the number of classes, by default that of the data set's `classes`.
Losses and metrics take such targets; evaluation sees the labels as they are.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import betaincinv

from data_loader.augment.moving import picture_size, rectangles
from utils import UserError

QUANTILES = 1024  # between which a distribution is taken for even


def mixup(
    batch: Any,
    alpha: float = 0.2,
    probability: float = 1,
    classes: int | None = None,
    *,
    key: jax.Array,
) -> Any:
    """Blends inputs and targets of two examples (Zhang et al. 2018, arXiv:1710.09412).

    Args:
        batch: inputs of any shape; targets: labels, probabilities or other numbers.
        alpha: of the Beta distribution of the shares; the smaller, the more unequal they are.
        probability: share of the batches' examples that are mixed.
        classes: number of classes, where targets are labels.
        key: random key.
    """
    share = _shares(batch, alpha, probability, key)

    def blend(x):
        own = share.reshape(-1, *[1] * (x.ndim - 1))
        mixed = own * x + (1 - own) * jnp.roll(x, 1, 0)
        return jnp.round(mixed).astype(x.dtype) if _is_whole(x) else mixed.astype(x.dtype)

    batch = batch | {"inputs": jax.tree.map(blend, batch["inputs"])}
    return _mix_targets(batch, share, _probabilities(batch["targets"], classes))


def cutmix(
    batch: Any,
    alpha: float = 1.0,
    probability: float = 1,
    classes: int | None = None,
    *,
    key: jax.Array,
) -> Any:
    """Pastes a rectangle of another picture into each (Yun et al. 2019, arXiv:1905.04899).

    Args:
        batch: pictures; targets: labels, probabilities, or masks, which are pasted as well.
        alpha: of the Beta distribution of the share of a picture that stays.
        probability: share of the batches' examples that are mixed.
        classes: number of classes, where targets are labels.
        key: random key.
    """
    height, width = picture_size(batch)
    shares, places = jax.random.split(key)
    side = jnp.sqrt(1 - _shares(batch, alpha, probability, shares))
    inside = rectangles(places, side * height, side * width, (height, width))
    share = 1 - inside.mean((1, 2))

    def paste(x):
        pasted = inside.reshape(len(x), *[1] * (x.ndim - 3), height, width)
        return jnp.where(pasted, jnp.roll(x, 1, 0), x)

    batch = batch | {"inputs": jax.tree.map(paste, batch["inputs"])}
    targets, weight = batch["targets"], batch["weight"]
    if getattr(targets, "ndim", 0) > 2 and targets.shape[-2:] == (height, width):
        mean = share * weight.T + (1 - share) * jnp.roll(weight, 1, 0).T
        weight = paste(weight) if weight.shape == inside.shape else mean.T
        return batch | {"targets": paste(targets), "weight": weight}
    return _mix_targets(batch, share, _probabilities(targets, classes))


def _probabilities(targets, classes):
    """Returns labels as (batch, classes) float32 probabilities; other numbers as float32.

    Raises:
        UserError: the targets are a dict, or labels without a number of classes.
    """
    if isinstance(targets, dict) or not hasattr(targets, "dtype"):
        got = f"a dict with the keys {sorted(targets)}" if isinstance(targets, dict) else "a tree"
        raise UserError(
            f"the targets are {got}; expected labels, (batch,), probabilities, (batch, classes), "
            "or numbers: there is no mean of the others"
        )
    if not _is_whole(targets):
        return targets.astype(jnp.float32)
    if targets.ndim != 1:
        raise UserError(
            f"the targets are integers of shape {targets.shape}; expected a label for each "
            "example, (batch,). Several labels at once: let the data set return floats"
        )
    if classes is None:
        raise UserError(
            "the data set has no `classes` that would tell how many there are; add the argument "
            '"classes": their number'
        )
    known = (targets >= 0) & (targets < classes)
    return jnp.where(known[:, None], jax.nn.one_hot(targets, classes), jnp.nan)


def _shares(batch, alpha, probability, key):
    """Returns each example's own share, (batch,); 1 where it, or the other, has no weight."""
    weight = batch["weight"]
    if not alpha > 0:
        raise UserError(f"alpha is {alpha!r}; expected a positive number")
    shares, chances = jax.random.split(key)
    own = _beta(shares, alpha, len(weight))
    mixed = jax.random.bernoulli(chances, 1.0 * probability, weight.shape[:1])
    some = (weight != 0).reshape(len(weight), -1).any(-1)
    return jnp.where(mixed & some & jnp.roll(some, 1), own, 1.0)


def _beta(key, alpha, count):
    """Draws from Beta(alpha, alpha), (count,): its quantiles at uniform numbers, by a table.

    Unlike the rejection sampling of `jax.random.beta` this compiles at once.
    """
    table = jnp.asarray(betaincinv(alpha, alpha, np.linspace(0, 1, QUANTILES + 1)), jnp.float32)
    place = QUANTILES * jax.random.uniform(key, (count,))
    low = place.astype(jnp.int32)
    return table[low] + (place - low) * (table[low + 1] - table[low])


def _mix_targets(batch, share, targets):
    """Mixes (batch, ...) numbers and weights; see the beginning of this file."""
    weight = batch["weight"]
    if weight.ndim > 1:
        raise UserError(
            f"the weight of a batch has shape {weight.shape}; expected one for each example, "
            "(batch,), as positions of two examples have no common weight"
        )
    own, other = share * weight, (1 - share) * jnp.roll(weight, 1)
    total = own + other
    part = jnp.where(total > 0, own / jnp.where(total > 0, total, 1), 1)
    part = part.reshape(-1, *[1] * (targets.ndim - 1))
    mixed = part * targets + (1 - part) * jnp.roll(targets, 1, 0)
    return batch | {"targets": mixed, "weight": total}


def _is_whole(x):
    return jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == bool
