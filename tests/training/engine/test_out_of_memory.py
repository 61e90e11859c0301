"""A device without memory is one message, with settings that take less: here, a CPU's."""

import functools
import re
import sys

import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.modules import Layers, linear
from tests.helpers.project import ROOT, by_set
from training.config import read_config
from training.engine.out_of_memory import ASKED, UNITS, _smaller_update

MODULE = __name__
HUGE = 10**10  # numbers of each example: 40 GB each


def wide(x, when, *, params=None, key=None, train=False):
    """Needs more memory than there is in training, or in evaluation."""
    layer = Layers(params, key, train)
    x = layer("first", linear, jnp.asarray(x, jnp.float32).reshape(len(x), -1), 4)
    if key is not None and train == (when == "update") and params is not None:
        x = jnp.sort(x[:, :, None] * jnp.ones(HUGE), axis=-1).sum(-1)
    if when == "evaluation" and key is None:
        x = jnp.sort(x[:, :, None] * jnp.ones(HUGE), axis=-1).sum(-1)
    return layer("head", linear, x, 10), layer.params


@pytest.fixture
def failed(run, config, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wide_network", sys.modules[MODULE])
    config["imports"] = ["wide_network"]

    def failed(*arguments):
        code, _ = run(*arguments)
        (line,) = capsys.readouterr().err.splitlines()
        assert code == 1
        assert line.startswith("error: out of memory on the CPU (")
        return line

    return failed


@pytest.mark.parametrize("option", by_set([()], [(), ("--check",)]))
def test_a_network_that_does_not_fit_is_told_with_its_size(failed, config, option):
    config["model"]["args"] = {"feat_dims": [3_000_000, 1_000_000]}
    line = failed(*option)
    assert "the state (1.12e+04 GiB of parameters, 2.24e+04 of the optimizer)" in line
    assert re.search(r"Make the network at least \d+ times smaller", line)


def test_an_update_that_does_not_fit_names_settings_that_take_less(failed, config):
    config["model"] = {"name": "wide_network:wide", "args": {"when": "update"}}
    line = failed()
    assert re.search(r"an update asked for .* GiB where .* GiB were free", line)
    assert "model.args" in line or "training.accumulate=" in line


def test_an_evaluation_that_does_not_fit_names_its_batch(failed, config):
    config["model"] = {"name": "wide_network:wide", "args": {"when": "evaluation"}}
    line = failed()
    assert re.search(r"an evaluation .* data_loader\.test\.args\.batch_size=\d+", line)


@functools.cache
def sample(pieces):
    overrides = [f"training.accumulate={pieces}", "data_loader.train.args.batch_size=480"]
    return read_config(ROOT / "config.json", overrides)


@given(factor=st.integers(2, 40), pieces=st.sampled_from([1, 2, 4]))
def test_the_settings_named_divide_the_batch_and_are_small_enough(factor, pieces):
    accumulate, size = map(int, re.findall(r"=(\d+)\)", _smaller_update(sample(pieces), factor)))
    assert 480 % accumulate == 0
    assert accumulate >= pieces * factor
    assert size <= max(480 / factor, pieces)


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 bytes.", 2**35),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 32.00GiB.", 2**35),
        ("INTERNAL: Error dispatching computation: Out of memory allocating 4096 bytes.", 4096),
        ("RESOURCE_EXHAUSTED: Attempting to allocate 1.5GiB. That was not possible.", 1.5 * 2**30),
        ("RESOURCE_EXHAUSTED: no number at all", None),
    ],
)
def test_what_was_asked_for_is_read_from_jaxs_message(message, asked):
    found = ASKED.search(message)
    assert (float(found[1]) * UNITS[found[2]] if found else None) == asked
