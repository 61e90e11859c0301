"""A state, a network or a part of it is restored from a checkpoint that fits exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.checkpoints import same, same_trees
from tests.helpers.python_process import python
from training.checkpoint.reading import read
from training.checkpoint.restore import network_params, restore
from training.checkpoint.single_file import write
from utils import UserError


def saved(tree, path):
    write(path / "saved.params", tree, {})
    return read(path / "saved.params")[0]


def test_a_state_is_restored_bit_for_bit_as_arrays_that_may_be_donated(tmp_path, state):
    arrays = saved(state, tmp_path)
    blank = jax.tree.map(jnp.zeros_like, state)
    restored = restore(blank, arrays)
    assert same_trees(restored, state)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))
    jax.block_until_ready(jax.jit(lambda tree: tree, donate_argnums=0)(restored))
    assert same_trees(restore(blank, arrays), state)


def test_a_template_may_be_of_shapes_only(tmp_path, state):
    assert same_trees(restore(jax.eval_shape(lambda: state), saved(state, tmp_path)), state)


SHARDED = """if True:
    import sys
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import NamedSharding, PartitionSpec
    from training.checkpoint.saver import Saver
    from training.checkpoint.naming import file_name, find
    from training.checkpoint.reading import read
    from training.checkpoint.restore import restore

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    state = {"w": jax.device_put(jnp.arange(32.0).reshape(8, 4), split), "b": jnp.ones(3)}
    state["b"] = jax.device_put(state["b"], whole)
    with Saver(sys.argv[1]) as saver:
        saver.save(state, {}, file_name(1))
    arrays, _ = read(find(sys.argv[1]))
    back = restore(jax.tree.map(lambda x: 0 * x, state), arrays)
    print(all(np.array_equal(back[name], state[name]) for name in state))
    print(back["w"].sharding == split, back["b"].sharding == whole, len(back["w"].devices()))
"""


def test_sharded_arrays_are_saved_whole_and_restored_to_their_devices(tmp_path):
    assert python(SHARDED, tmp_path, devices=4) == "True\nTrue True 4\n"


def test_all_that_does_not_fit_is_listed(tmp_path, state):
    arrays = saved(state, tmp_path)
    del arrays["optimizers/0/count"]
    arrays["params/head/bias"] = np.zeros(2, np.float32)
    arrays["params/stem/kernel"] = np.zeros((4, 3), np.float32)
    arrays["step"] = np.int64(7)
    with pytest.raises(UserError) as error:
        restore(state, arrays, where="runs/a.params")
    assert str(error.value) == (
        "runs/a.params does not fit.\n"
        "  1 missing:\n"
        "    optimizers/0/count: int32 ()\n"
        "  1 not expected:\n"
        "    params/head/bias: float32 (2,)\n"
        "  2 different:\n"
        "    step: int64 (), expected int32 ()\n"
        "    params/stem/kernel: float32 (4, 3), expected float32 (3, 4)\n"
        "Use the config and the model code it was saved with, or take only parts that fit."
    )


def test_long_lists_of_misfits_are_cut_and_counted():
    template = {f"layer{index}": np.zeros(2) for index in range(25)}
    with pytest.raises(UserError) as error:
        restore(template, {})
    lines = str(error.value).splitlines()
    assert lines[1] == "  25 missing:"
    assert lines[-2] == "    ..."
    assert len(lines) == 14


def test_a_subtree_is_restored_by_its_prefix(tmp_path, state):
    arrays = saved(state, tmp_path)
    blank = jax.tree.map(jnp.zeros_like, state.params)
    assert same_trees(restore(blank, arrays, prefix="params"), state.params)
    assert same_trees(restore(blank, arrays, prefix="optimizers/0/mu"), state.params)
    with pytest.raises(UserError, match="3 missing:\n    ema_params/stage1/norm/scale"):
        restore(blank, arrays, prefix="ema_params")


def test_partial_takes_the_named_parts_and_keeps_the_rest(tmp_path, state):
    arrays = saved(state, tmp_path)
    fresh = jax.tree.map(lambda x: x - 5, state.params) | {"stem2": jnp.ones(9)}
    restored = restore(fresh, arrays, "params", partial=["stem", "stage1/norm/"])
    assert same(restored["stem"]["kernel"], state.params["stem"]["kernel"])
    assert same(restored["stage1"]["norm"]["scale"], state.params["stage1"]["norm"]["scale"])
    assert restored["stage1"]["stats"]["mean"] is fresh["stage1"]["stats"]["mean"]
    assert restored["stem2"] is fresh["stem2"]
    one = restore(fresh, arrays, "params", partial=["stage1/norm/scale"])
    assert same(one["stage1"]["norm"]["scale"], state.params["stage1"]["norm"]["scale"])
    assert one["stem"]["kernel"] is fresh["stem"]["kernel"]


@pytest.mark.parametrize(
    ("partial", "words"),
    [
        (
            ["stem", "stage1/nrm"],
            "no part is named 'params/stage1/nrm'; did you mean 'params/stage1/norm",
        ),
        (["ste"], "no part is named 'params/ste'; did you mean 'params/stem"),
        ([], '"partial": [] takes nothing; expected the paths of parts'),
        (["stem2"], "1 missing:\n    params/stem2"),
        (
            ["stage1"],
            "1 different:\n    params/stage1/norm/scale: float32 (4,), expected float32 (5,)",
        ),
        (["extra"], "1 not expected:\n    params/extra"),
    ],
)
def test_a_part_that_does_not_exist_or_does_not_fit_is_reported(tmp_path, state, partial, words):
    arrays = saved(state, tmp_path) | {"params/extra": np.ones(2)}
    fresh = jax.tree.map(lambda x: x, state.params) | {"stem2": jnp.ones(9)}
    fresh["stage1"]["norm"] = {"scale": jnp.ones(5)}
    with pytest.raises(UserError) as error:
        restore(fresh, arrays, "params", partial=partial)
    assert words in str(error.value)


def test_a_network_is_evaluated_with_the_moving_average_of_its_weights(tmp_path):
    state = {
        "step": jnp.int32(1),
        "params": {"stem": {"kernel": jnp.ones(2)}, "norm": {"stats": jnp.ones(3)}},
        "ema_params": {"stem": {"kernel": jnp.full(2, 0.5)}},
    }
    params = network_params(saved(state, tmp_path))
    assert {name: array.tolist() for name, array in params.items()} == {
        "stem/kernel": [0.5, 0.5],
        "norm/stats": [1, 1, 1],
    }
    plain = network_params(saved(state | {"ema_params": None}, tmp_path))
    assert plain["stem/kernel"].tolist() == [1, 1]
    restored = restore(state["params"], params)
    assert restored["stem"]["kernel"].tolist() == [0.5, 0.5]
    with pytest.raises(UserError, match="the checkpoint has no params, only step"):
        network_params({"step": np.int32(1)})
