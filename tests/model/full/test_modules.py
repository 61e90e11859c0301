"""Slow tests of layers: a kernel of many, another process, gradients of a batch of kernels."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from model.modules import (
    conv2d,
    linear,
)
from tests.helpers.layers import KEY, assert_equal, normal


def test_another_process_makes_the_same_parameters():
    program = (
        "import jax, numpy; from model.modules import linear;"
        "_, params = linear(numpy.ones((1, 8)), 2, key=jax.random.key(3));"
        "print([float(leaf.sum()) for leaf in jax.tree.leaves(params)])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    _, params = linear(np.ones((1, 8)), 2, key=jax.random.key(3))
    assert done.stdout.strip() == str([float(leaf.sum()) for leaf in jax.tree.leaves(params)])


def test_new_kernels_keep_the_variance_of_their_input():
    x = normal(64, 12, 12, 32)
    for y, _ in (linear(x, 256, key=KEY), conv2d(x, 64, 3, padding="VALID", key=KEY)):
        assert 0.9 < np.std(y) < 1.1


def test_the_shifted_form_can_be_vmapped_and_keeps_the_dtype():
    x, kernel = normal(3, 2, 12, 12, 4), normal(3, 5, 5, 1, 4)

    def gradients(x, kernel):
        def loss(x, kernel):
            y, _ = conv2d(x, 4, 5, groups=4, bias=False, params={"kernel": kernel})
            return jnp.square(y.astype(jnp.float32)).sum()

        return jax.grad(loss, (0, 1))(x, kernel)

    batched = jax.vmap(gradients)(x, kernel)
    singly = [gradients(*one) for one in zip(x, kernel, strict=True)]
    assert_equal(batched, jax.tree.map(lambda *leaves: np.stack(leaves), *singly), rtol=1e-5)
    narrow = gradients(x[0].astype(jnp.bfloat16), kernel[0])
    assert [leaf.dtype for leaf in narrow] == [jnp.bfloat16, jnp.float32]
    for ours, exact in zip(narrow, singly[0], strict=True):
        np.testing.assert_allclose(ours, exact, rtol=0.05, atol=0.02 * np.abs(exact).max())
