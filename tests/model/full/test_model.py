"""More tests of networks."""

import jax
import numpy as np

from model.model import transformer_block

KEY = jax.random.key(0)


def test_a_transformer_block_with_a_causal_mask_does_not_see_the_future():
    x = np.random.default_rng(0).normal(size=(1, 6, 8)).astype(np.float32)
    mask = np.tril(np.ones((6, 6), bool))

    @jax.jit
    def flow(x):
        _, params = transformer_block(x, 2, mask, key=KEY)
        return jax.jacobian(lambda x: transformer_block(x, 2, mask, params=params)[0].sum(-1))(x)

    flow = np.abs(flow(x)[0, :, 0]).sum(-1)
    assert (flow[~mask] == 0).all()
    assert (flow[mask] > 0).all()
