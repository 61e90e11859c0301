"""Layouts of other libraries, against what these libraries make of their own weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.modules import Layers, batch_norm, conv2d, linear
from tests.helpers.project import ROOT
from training.common.trees import named_leaves
from training.weights.layouts import arrange, disarrange
from training.weights.mapping import map_arrays


@pytest.mark.parametrize("side", [3, 9])
def test_embeddings_of_positions_are_resized_as_timm_does(side):
    recorded = np.load(ROOT / "tests/fixtures/weights/positions.npz")
    wanted = recorded[f"side_{side}"]
    file = {"pos_embed": recorded["positions"]}
    values, (row,) = map_arrays(file, {"pos_embed": wanted[0]}, {}, "f")
    assert row.layout == "resized"
    assert np.allclose(np.asarray(values["pos_embed"]), wanted[0], atol=1e-5)


def test_a_table_of_positions_in_a_text_is_not_resized():
    file = {"pos_embed.weight": np.ones((25, 8), np.float32)}
    _, (row,) = map_arrays(file, {"pos_embed/table": np.ones((9, 8), np.float32)}, {}, "f")
    assert row.problem == "other shape"


def test_a_network_of_flax_computes_the_same_here():
    class Theirs(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(6, (3, 3), padding="SAME")(x)
            x = nn.BatchNorm(use_running_average=True)(x)
            return nn.Dense(6)(x.mean((1, 2)))

    def ours(x, *, params=None, key=None, train=False):
        layer = Layers(params, key, train)
        x = layer("stem", conv2d, x, 6, 3)
        x = layer("norm", batch_norm, x)
        return layer("head", linear, x.mean((1, 2)), 6), layer.params

    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
    variables = Theirs().init(jax.random.key(1), x)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, variables)
    file = {name: np.asarray(leaf) for name, leaf in named_leaves(moved).items()}
    _, template = jax.eval_shape(lambda x: ours(x, key=jax.random.key(0)), x)
    names = {"*/Conv_0": "stem", "*/BatchNorm_0": "norm", "*/Dense_0": "head"}
    values, rows = map_arrays(file, named_leaves(template), names, "f")
    assert not [row for row in rows if row.problem]
    arrays = [jnp.asarray(np.asarray(values[name])) for name in named_leaves(template)]
    params = jax.tree.unflatten(jax.tree.structure(template), arrays)
    assert np.allclose(ours(x, params=params)[0], Theirs().apply(moved, x), atol=1e-5)


@pytest.mark.parametrize("layout", ["as-is", "transposed", "depthwise"])
@pytest.mark.parametrize("shape", [(3, 4), (5, 4, 3, 2), (6, 5, 1, 1), (7, 1, 3, 3)])
def test_what_is_arranged_and_disarranged_is_the_same_bits(layout, shape):
    array = np.random.default_rng(0).standard_normal(shape)
    here = arrange(array, layout)
    for one in (here, here.squeeze()):
        assert np.array_equal(disarrange(one, layout, shape), array)
