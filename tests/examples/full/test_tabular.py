"""The example in examples/tabular: regression with several inputs, its own loss and metrics."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

import train
from data_loader.device_cache import gather
from examples.tabular import diabetes
from examples.tabular.diabetes import UNIT, Diabetes, normal_log_likelihood, within_one_deviation
from inference import convert_tflite
from inference.verify.runtimes import load
from tests.helpers.examples import tabular_config
from tests.helpers.project import same_arrays
from training.checkpoint.naming import find
from training.checkpoint.reading import read
from training.checkpoint.restore import network_params
from training.config import read_config
from training.distributed.sharding import put_batch
from training.engine.build import build
from training.engine.evaluation import evaluate, real_examples
from training.engine.initialize import restored_params
from utils import UserError


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """The example as it is: it takes seconds."""
    folder = tmp_path_factory.mktemp("tabular")
    path = folder / "config.json"
    path.write_text(json.dumps(tabular_config(folder / "saved")))
    assert train.main(["-c", str(path)]) == 0
    return next((folder / "saved").glob("*/*"))


@pytest.fixture(scope="module")
def experiment(finished_run):
    return build(read_config(finished_run / "config.json"))


@pytest.fixture(scope="module")
def outputs(finished_run, experiment):
    """The metrics, outputs and targets of the last checkpoint on the test set."""
    checkpoint = find(finished_run)
    params = restored_params(experiment, network_params(read(checkpoint)[0]), checkpoint)
    results, _ = evaluate(experiment, params, "test")
    kept = []
    for batch in experiment.loaders["test"].batches(epoch=1):
        batch = put_batch(batch, experiment.mesh)
        _, outputs = experiment.evaluate(params, batch)
        kept.append(real_examples((outputs, gather(batch["targets"])), batch["weight"]))
    outputs, targets = jax.tree.map(lambda *parts: np.concatenate(parts), *kept)
    return results, outputs, targets


def test_the_splits_are_disjoint_and_standardised_with_the_training_split():
    table, progression = load_diabetes(return_X_y=True, scaled=False)
    splits = Diabetes("train"), Diabetes("test")
    assert [len(split) for split in splits] == [354, 88]
    together = np.concatenate([split.progression for split in splits]) * UNIT
    np.testing.assert_allclose(np.sort(together), np.sort(progression), rtol=1e-6)
    np.testing.assert_allclose(splits[0].numbers.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(splits[0].numbers.std(0), 1, rtol=1e-5)
    assert np.abs(splits[1].numbers.mean(0)).max() > 0.01
    sexes = np.concatenate([split.sex for split in splits])
    assert np.bincount(sexes).tolist() == np.bincount(table[:, 1].astype(int))[1:].tolist()
    with pytest.raises(UserError, match="split is 'validation'"):
        Diabetes("validation")


def test_loss_and_coverage_equal_those_of_scipys_normal_distribution():
    random = np.random.default_rng(0)
    mean, deviation, targets = (
        random.normal(size=9),
        random.uniform(0.1, 2, 9),
        random.normal(size=9),
    )
    outputs = {"mean": jnp.asarray(mean), "log_variance": jnp.asarray(2 * np.log(deviation))}
    expected = -norm(mean, deviation).logpdf(targets)
    np.testing.assert_allclose(normal_log_likelihood(outputs, targets), expected, rtol=1e-4)
    near = np.abs(targets - mean) <= deviation
    assert 0 < near.sum() < 9
    assert within_one_deviation(outputs, targets).tolist() == near.tolist()


def test_r_squared_equals_scikit_learns_and_is_as_good_as_linear_regression(outputs, finished_run):
    results, outputs, targets = outputs
    assert len(targets) == 88  # of three batches, the last padded
    assert results["test_r_squared"] == pytest.approx(r2_score(targets, outputs["mean"]), abs=1e-5)
    last = json.loads((finished_run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["test_r_squared"] == results["test_r_squared"]

    splits = [
        (np.column_stack([split.numbers, split.sex]), split.progression)
        for split in (Diabetes("train"), Diabetes("test"))
    ]
    linear = LinearRegression().fit(*splits[0]).score(*splits[1])
    assert results["test_r_squared"] > linear - 0.03
    assert 0.5 < results["test_within_one_deviation"] < 0.85


def test_both_inputs_affect_the_outputs(experiment, finished_run):
    batch = next(experiment.loaders["test"].batches(epoch=1))["inputs"]
    checkpoint = find(finished_run)
    params = restored_params(experiment, network_params(read(checkpoint)[0]), checkpoint)
    plain, _ = diabetes.network(batch, params=params)
    for changed in ({"sex": 1 - batch["sex"]}, {"numbers": batch["numbers"] + 1}):
        other, _ = diabetes.network(batch | changed, params=params)
        for name in ("mean", "log_variance"):
            assert np.all(np.asarray(plain[name]) != np.asarray(other[name]))


def test_a_finished_run_resumed_with_more_epochs_equals_one_that_had_them(finished_run, tmp_path):
    """With a constant learning rate, as a schedule depends on the number of epochs."""
    rate = "training.optimizer.args.learning_rate=0.005"
    config = str(finished_run / "config.json")
    runs = []
    for name, epochs in (("whole", 4), ("parts", 2)):
        folder = tmp_path / name
        options = [rate, f"training.epochs={epochs}", f"training.save_dir={folder}"]
        assert train.main(["-c", config, *options]) == 0
        runs.append(next(folder.glob("*/*")))
    assert train.main(["--resume", str(runs[1]), "training.epochs=4"]) == 0
    assert same_arrays(*(read(find(one))[0] for one in runs))


def test_exported_files_have_two_inputs_and_two_outputs(finished_run, experiment, tmp_path):
    arguments = ["--name", "table", "-w", str(finished_run), "--into", str(tmp_path)]
    assert convert_tflite.main(arguments) == 0
    batch = next(experiment.loaders["test"].batches(epoch=1))["inputs"]
    checkpoint = find(finished_run, prefer_best=True)
    params = restored_params(experiment, network_params(read(checkpoint)[0]), checkpoint)
    wanted, _ = jax.jit(diabetes.network)(batch, params=params)
    for suffix in (".onnx", ".tflite"):
        made = load(tmp_path / "table" / f"table{suffix}").run(batch)
        assert made.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_allclose(made[name], array, atol=1e-5)
