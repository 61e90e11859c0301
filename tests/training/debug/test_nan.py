"""A loss or gradient that is not finite: its layer is named, its step is saved and replayed."""

import re

import pytest

from tests.helpers.project import by_set


@pytest.mark.parametrize(
    ("network", "culprit"),
    by_set(
        [("logarithm", "that of layer logarithm")],
        [("logarithm", "that of layer logarithm"), ("root_of_zero", "the gradient of hidden/")],
    ),
)
def test_a_value_that_is_not_finite_stops_the_run_and_names_its_layer(
    run, config, script, capsys, network, culprit
):
    config["model"] = {"name": f"tests.helpers.networks:{network}"}
    code, folder = run()
    error = capsys.readouterr().err
    assert code == 1
    assert "epoch 1, batch 0 (update 1): " in error
    assert culprit in error
    assert (folder / "not-finite-step_1.params").exists()
    command = re.search(r"python (-m training\.debug\.nan \S+)", error).group(1)
    replayed = script(*command.split())
    assert replayed.returncode == 0, replayed.stderr
    assert culprit in replayed.stdout
    assert "hidden " in replayed.stdout
