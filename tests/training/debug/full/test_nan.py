"""The step that was not finite is saved with its batch."""

import re

import pytest

from tests.helpers.project import BATCH_SIZE
from training.checkpoint.reading import read


def test_the_step_that_was_not_finite_is_saved_with_its_batch(run, config, capsys):
    config["training"]["optimizer"] = {"name": "sgd", "args": {"learning_rate": 1e30}}
    code, folder = run()
    error = capsys.readouterr().err
    assert code == 1
    (saved,) = folder.glob("not-finite-step_*.params")
    arrays, meta = read(saved)
    assert arrays["state/step"] == int(saved.stem.rpartition("_")[2]) - 1
    assert arrays["batch/inputs"].shape == (BATCH_SIZE, 1, 28, 28)
    assert meta["epoch"] == 1
    assert "checkpoint" not in error


@pytest.mark.parametrize(
    ("network", "culprit"),
    [("logarithm", "that of layer logarithm"), ("root_of_zero", "the gradient of hidden/")],
)
def test_a_step_that_is_not_finite_is_replayed_by_the_command_that_the_message_names(
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
