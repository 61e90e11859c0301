"""The learning rates and gradient norms that runs log, compared with independent ones."""

import math

import numpy as np
import pytest

from training.common.records import read_lines

BATCHES, EPOCHS = 8, 2  # of the small MNIST
STEPS = np.arange(BATCHES * EPOCHS)
COSINE = {
    "name": "cosine_decay_schedule",
    "args": {"init_value": 0.1, "decay_steps": "total_steps"},
}
COSINE_RATES = 0.05 * (1 + np.cos(math.pi * STEPS / len(STEPS)))
ADAM = {"name": "scale_by_adam", "args": {}}


def chain(*links):
    return {"name": "chain", "args": list(links)}


def rate(value):
    return {"name": "scale_by_learning_rate", "args": {"learning_rate": value}}


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ({"name": "sgd", "args": [0.125]}, 0.125),
        ({"name": "lion", "args": {"learning_rate": COSINE}}, COSINE_RATES),
        (chain(ADAM, rate(COSINE)), COSINE_RATES),
        (chain(ADAM, {"name": "scale_by_learning_rate", "args": [COSINE]}), COSINE_RATES),
        (chain(chain(ADAM), chain(rate(0.125))), 0.125),
        (chain(rate(0.125), rate(0.5)), None),  # neither is the learning rate
        (chain(ADAM, {"name": "scale", "args": [-0.125]}), None),
    ],
    ids=["position", "optax", "chain", "in chain by position", "nested", "two", "unknown"],
)
def test_each_update_logs_the_learning_rate_it_used(run, config, optimizer, expected):
    config["training"] |= {"optimizer": optimizer, "epochs": EPOCHS, "log_every": "1 step"}
    code, folder = run()
    assert code == 0
    lines = [line for line in metrics(folder) if "batch" in line]
    assert [line["step"] for line in lines] == list(STEPS + 1)
    if expected is None:
        assert not any("learning_rate" in line for line in lines)
    else:
        rates = [line["learning_rate"] for line in lines]
        np.testing.assert_allclose(rates, np.broadcast_to(expected, len(lines)), rtol=1e-5)
    assert all(line["gradient_norm"] > 0 for line in lines)


def test_the_gradient_norm_of_several_seeds_is_their_mean_with_a_standard_deviation(run, config):
    config["training"] |= {"epochs": 1, "log_every": "1 step"}
    config["data_loader"]["train"]["args"]["shuffle"] = False  # else each run has its own order
    alone = [metrics(run(f"seed={seed}")[1])[0]["gradient_norm"] for seed in (0, 1)]
    first = metrics(run("training.seeds=2")[1])[0]
    assert first["gradient_norm"] == pytest.approx(np.mean(alone), rel=1e-5)
    assert first["gradient_norm_std"] == pytest.approx(np.std(alone, ddof=1), rel=1e-3)
    assert first["learning_rate_std"] == 0


def metrics(folder):
    return read_lines(folder / "metrics.jsonl")


ADAM = {"name": "scale_by_adam", "args": {}}


def chain(*links):
    return {"name": "chain", "args": list(links)}


def test_a_learning_rate_in_a_chain_that_is_not_a_number_is_refused_with_its_path(
    run, config, capsys
):
    config["training"]["optimizer"] = chain(ADAM, {"name": "scale_by_learning_rate", "args": [[1]]})
    assert run()[0] == 1
    message = "training.optimizer.args.1.args.learning_rate: expected a number, or a schedule"
    assert message in capsys.readouterr().err
