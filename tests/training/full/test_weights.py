"""A batch without weight changes nothing: several groups, seeds, updates in a call, devices."""

import json
import os

import jax
import numpy as np
import pytest

import train
from tests.helpers import labelled
from tests.helpers.project import ROOT
from tests.helpers.updates import (
    as_it_is,
    assert_nothing_was_measured,
    batch_of,
    copy,
    make,
    same_bits,
    with_statistics,
    without_weight,
)
from training import optimizers
from training.engine.compilation import compile_functions
from training.engine.scan import scan_steps, vmap_seeds
from training.engine.step import OptimizerGroup, make_evaluate, make_forward, make_init, make_step
from training.loss import cross_entropy
from training.metrics import accuracy, macro_f1


def test_nothing_changes_with_several_groups_seeds_and_updates_in_a_call():
    groups = {
        "first": OptimizerGroup(cross_entropy, optimizers.adamw(0.1), ("hidden",)),
        "second": OptimizerGroup(cross_entropy, optimizers.sgd(0.1, 0.9), ("norm", "out")),
    }
    forward, metrics = make_forward(with_statistics, as_it_is), {"a": accuracy, "f": macro_f1}
    init, update, evaluate = vmap_seeds(
        lambda seed: make_init(forward, groups, seed, 0.9),
        lambda seed: make_step(forward, groups, metrics, seed, 2, 0.9),
        make_evaluate(forward, groups, metrics),
        np.arange(2, dtype=np.uint32),
    )
    init, several, _ = compile_functions(init, scan_steps(update, 3), evaluate)

    def call(state, *batches):
        return several(copy(state), jax.tree.map(lambda *leaves: np.stack(leaves), *batches))

    state, empty = init(batch_of(12)), without_weight()
    between, measured = call(state, batch_of(12), empty, batch_of(12))
    after, _ = call(state, batch_of(12), batch_of(12), empty)
    assert same_bits(between, after)
    np.testing.assert_array_equal(after.step, [2, 2])
    assert_nothing_was_measured(jax.tree.map(lambda leaf: leaf[1], measured))
    unchanged, _ = call(after, empty, empty, empty)
    assert same_bits(unchanged, after)


def interrupted(folder):
    """A config whose second batch of training has the weight 0, and labels that are no class."""
    config = labelled.small_config(folder, "Interrupted", "ignoring")
    args = config["data_loader"]["test"]["args"]
    plain = {"name": "tests.helpers.labelled:Points", "args": {}}
    config["data_loader"]["test"]["args"] = args | {"dataset": plain}
    return config


def test_figures_are_those_of_the_other_batches(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    plain = train.fit(labelled.small_config(tmp_path / "plain", "Points", "ignoring"))
    other = train.fit(interrupted(tmp_path / "other"))
    assert same_bits(other.state.params, plain.state.params)
    assert same_bits(other.state.optimizers, plain.state.optimizers)
    assert other.metrics == plain.metrics


def test_figures_are_right_on_several_devices(tmp_path, script, write_config):
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    lines = []
    for config in (
        labelled.small_config(tmp_path / "plain", "Points", "ignoring"),
        interrupted(tmp_path / "other"),
    ):
        done = script("train.py", "-c", write_config(config), env=environment)
        assert done.returncode == 0, done.stderr
        (log,) = (tmp_path / ("other" if lines else "plain")).glob("saved/*/*/metrics.jsonl")
        lines.append(json.loads(log.read_text().splitlines()[-1]))
    assert {**lines[0], "step": 0} == {**lines[1], "step": 0}


SETTINGS = [({"ema": 0.9, "accumulate": 2}, np.inf), ({}, 0.0), ({}, np.inf), ({"ema": 0.9}, 0.0)]


@pytest.mark.parametrize(("settings", "value"), SETTINGS)
def test_an_update_without_weight_changes_no_bit_of_the_state(settings, value):
    state, update, _ = make(with_statistics, optimizers.adamw(0.1), **settings)
    state, _ = update(state, batch_of(12))
    before = copy(state)
    after, measured = update(state, without_weight(value))
    assert same_bits(after, before)
    assert_nothing_was_measured(measured)
    after, measured = update(after, batch_of(12))  # and training continues
    assert after.step == before.step + 1
    assert measured["finite"]
    assert not same_bits(after.params, before.params)
