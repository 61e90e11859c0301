"""What the tests of layers share."""

import jax
import numpy as np

KEY = jax.random.key(0)


def normal(*shape, seed=0, scale=1.0, offset=0.0):
    values = np.random.default_rng(seed).normal(offset, scale, shape)
    return values.astype(np.float32)


def assert_equal(tree, other, **tolerance):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    compare = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
    jax.tree.map(lambda a, b: compare(a, b, **tolerance), tree, other)
