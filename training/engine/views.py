"""Test-time augmentation: outputs are means over several views of the inputs."""

import jax
import jax.numpy as jnp

from data_loader.augment.moving import picture_size
from training.engine.user_code import wrap_user_function
from utils import UserError, check_name, resolve

HOMES = ("data_loader.augment.views",)
OPTION = "--tta"


def bind_views(names, imports=()):
    """Returns the functions of views; see data_loader/augment/views.py."""
    views = []
    for name in names:
        if faults := check_name(name, "view", HOMES, OPTION, imports):
            raise UserError("\n".join(faults))
        views.append(wrap_user_function(resolve(name, HOMES, OPTION), name, "transform", OPTION))
    return views


def average_views(forward, views):
    """Returns the forward whose outputs in evaluation are means over the inputs and their views."""
    if not views:
        return forward

    def averaged(params, inputs, key, train):
        outputs, new = forward(params, inputs, key, train)
        if train:
            return outputs, new
        batch = {"inputs": inputs, "weight": jnp.ones(len(jax.tree.leaves(inputs)[0]))}
        seen = [outputs]
        for view in views:
            other, _ = forward(params, view(batch | {"targets": {}})["inputs"], key, train)
            seen.append(_moved_back(view, batch, other))
        return jax.tree.map(lambda *each: sum(each) / len(each), *seen), new

    averaged.preprocess = forward.preprocess
    return averaged


def _moved_back(view, batch, outputs):
    """Returns the outputs for a view as those for the inputs themselves."""
    size = picture_size(batch)

    def is_map(leaf):  # with its channels last
        return leaf.ndim == 4 and leaf.shape[1:3] == size

    first = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 1) if is_map(leaf) else leaf, outputs)
    back = view(batch | {"targets": first})["targets"]
    return jax.tree.map(
        lambda leaf, like: jnp.moveaxis(leaf, 1, -1) if is_map(like) else leaf, back, outputs
    )
