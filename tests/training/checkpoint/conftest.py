"""What the tests of checkpoints share."""

import jax.numpy as jnp
import pytest

from tests.helpers.checkpoints import State


@pytest.fixture
def state():
    params = {
        "stem": {"kernel": jnp.arange(12.0).reshape(3, 4)},
        "stage1": {"norm": {"scale": jnp.ones(4)}, "stats": {"mean": jnp.zeros(4, jnp.bfloat16)}},
    }
    return State(jnp.int32(7), params, ({"mu": params, "count": jnp.int32(7)}, ()))
