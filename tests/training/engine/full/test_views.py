"""`test.py --tta`, in a process."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

import test as test_command
import train
from training.config import read_config
from training.engine.load import load
from training.engine.loaders import make_loaders
from training.engine.views import average_views, bind_views


@pytest.fixture(scope="module")
def finished(config_of, tmp_path_factory):
    """The folder of a run of one epoch."""
    return train.fit(config_of(tmp_path_factory.mktemp("finished")), training__epochs=1).folder


def test_the_command_averages_the_outputs_of_every_view(finished, capsys):
    results = {}
    for option in ([], ["--tta", "horizontal_flip,vertical_flip"]):
        assert test_command.main(["-w", str(finished), "--latest", "--trust", *option]) == 0
        results[bool(option)] = re.search(r"accuracy @ (\S+)", capsys.readouterr().out)[1]
    predict = load(finished, trust=True)
    loader = make_loaders(read_config(finished / "config.json"), "config.json")["test"]
    right = []
    for batch in loader.batches(epoch=1):
        x = batch["inputs"]
        seen = [predict(one) for one in (x, x[..., ::-1], x[..., ::-1, :])]
        hits = np.mean(seen, 0).argmax(-1) == batch["targets"]
        right += hits[batch["weight"] > 0].tolist()
    assert float(results[True]) == pytest.approx(np.mean(right))
    assert results[True] != results[False]


def test_a_view_that_is_not_there_is_named(finished, capsys):
    assert test_command.main(["-w", str(finished), "--trust", "--tta", "horizontal_flp"]) == 1
    assert "--tta: no view 'horizontal_flp'" in (message := capsys.readouterr().err)
    assert "did you mean 'horizontal_flip'?" in message


VIEWS = {
    "horizontal_flip": lambda x: x[..., ::-1],
    "vertical_flip": lambda x: x[..., ::-1, :],
    "half_turn": lambda x: x[..., ::-1, ::-1],
}


def everything(params, inputs, key, train):
    """Maps in either layout, boxes and classes, of which none depends on the view."""
    height, width = inputs.shape[-2:]
    bright = inputs[:, 0] > 0
    columns, rows = bright.any(1), bright.any(2)
    last = [size - jnp.argmax(one[:, ::-1], 1) for one, size in ((columns, width), (rows, height))]
    box = [jnp.argmax(columns, 1), jnp.argmax(rows, 1), *last]
    return {
        "map": jnp.moveaxis(inputs, 1, -1), "mask": inputs, "plane": inputs[:, 0],
        "box": jnp.stack(box, -1).astype(jnp.float32), "class": inputs.sum((2, 3)),
    }, params  # fmt: skip


def test_maps_and_boxes_are_moved_back_before_they_are_averaged():
    x = np.zeros((2, 3, 6, 5), np.float32)
    x[0, :, 1, 1], x[1, 1, 0, 1] = [1, 2, 3], 4
    x[1, 0, 0, 2] = 1
    everything.preprocess = lambda inputs: inputs
    forward = average_views(everything, bind_views(VIEWS))
    wanted, found = everything({}, x, None, False)[0], forward({}, x, None, False)[0]
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], err_msg=name)
