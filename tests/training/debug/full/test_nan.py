"""The step that was not finite is saved with its batch."""

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
