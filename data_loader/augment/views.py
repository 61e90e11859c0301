"""Views of pictures over which `test.py --tta NAME,NAME` averages a network's outputs.

A view is f(batch) -> batch that gives back the batch when it is called twice. It is applied to the
inputs, and to the outputs as if they were targets: maps, boxes and points are moved back.
"""

from typing import Any

import jax.numpy as jnp

from data_loader.augment.moving import examples, mirror


def horizontal_flip(batch: Any) -> Any:
    """Mirrors pictures left to right."""
    return mirror(batch, across=jnp.ones(examples(batch), bool))


def vertical_flip(batch: Any) -> Any:
    """Mirrors pictures upside down."""
    return mirror(batch, down=jnp.ones(examples(batch), bool))


def half_turn(batch: Any) -> Any:
    """Turns pictures by 180 degrees."""
    every = jnp.ones(examples(batch), bool)
    return mirror(batch, every, every)
