"""`test.py --tta`, in a process."""

import re

import numpy as np
import pytest

import test as test_command
import train
from training.config import read_config
from training.engine.build import make_loaders
from training.engine.load import load


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
