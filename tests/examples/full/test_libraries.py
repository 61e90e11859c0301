"""The examples in examples/libraries: networks of other libraries, trained by train.py."""

import importlib
import importlib.util
import json
import re
import signal
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import train
from benchmarks.plugins import LOOPS, normalized
from inference import convert_tflite
from inference.verify.runtimes import load
from tests.helpers.examples import library_config
from tests.helpers.project import BATCH_SIZE, ROOT, same_arrays
from training.checkpoint.naming import find
from training.checkpoint.reading import read
from training.common.trees import named_leaves, split
from training.config import read_config
from training.engine.build import build
from training.engine.initialize import first_batch

EXAMPLES = ROOT / "examples" / "libraries"
README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
LIBRARIES = ["nnx", "linen", "haiku", "equinox"]
FEATURES, CLASSES, SIDE = 16, 10, 28


@pytest.fixture(scope="module", params=LIBRARIES)
def library(request):
    return request.param


@pytest.fixture
def config(library, mnist, tmp_path):
    return library_config(f"{library}_cnn", mnist, tmp_path / "saved")


@pytest.fixture(scope="module")
def finished_run(library, mnist, tmp_path_factory):
    """The folder of a run of two epochs."""
    folder = tmp_path_factory.mktemp(library)
    path = folder / "config.json"
    path.write_text(json.dumps(library_config(f"{library}_cnn", mnist, folder / "saved")))
    assert train.main(["-c", str(path)]) == 0
    return next((folder / "saved").glob("*/*"))


@pytest.fixture(scope="module")
def test_script():
    spec = importlib.util.spec_from_file_location("evaluation_script", ROOT / "test.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture
def network(library):
    return importlib.import_module(f"examples.libraries.{library}_cnn").cnn


def test_train_py_trains_it(finished_run, library):
    lines = map(json.loads, (finished_run / "metrics.jsonl").read_text().splitlines())
    first, second = (line for line in lines if "test_accuracy" in line)
    assert second["epoch_train_loss"] < first["epoch_train_loss"]
    assert second["epoch_train_accuracy"] > 0.5
    assert (finished_run / "examples" / "libraries" / f"{library}_cnn.py").exists()


def test_a_run_stopped_within_an_epoch_and_resumed_ends_with_the_same_bits(
    config, run, finished_run, monkeypatch
):
    config["data_loader"]["train"]["args"]["dataset"]["name"] = "tests.helpers.networks:Signalling"
    monkeypatch.setenv("SIGNAL_AT", "SIGINT@11")  # the first epoch reads 1-8
    code, folder = run()
    assert code == 128 + signal.SIGINT
    monkeypatch.delenv("SIGNAL_AT")
    code, folder = run("--resume", str(folder))
    assert code == 0
    assert same_arrays(*(read(find(one))[0] for one in (folder, finished_run)))
    metrics = [(one / "metrics.jsonl").read_bytes() for one in (folder, finished_run)]
    assert metrics[0] == metrics[1]


def test_test_py_prints_the_same_metrics_as_the_run(finished_run, test_script, capsys):
    last = json.loads((finished_run / "metrics.jsonl").read_text().splitlines()[-1])
    capsys.readouterr()
    assert test_script.main(["-w", str(finished_run), "--latest"]) == 0
    assert f"accuracy @ {last['test_accuracy']}\n" in capsys.readouterr().out


def test_initialising_equals_applying_and_evaluation_ignores_the_key(network):
    x = jax.random.normal(jax.random.key(0), (3, 1, SIDE, SIDE))
    made, params = network(x, key=jax.random.key(1))
    first, after = network(x, params=params, key=jax.random.key(2))
    again, _ = network(x, params=params)
    assert np.array_equal(made, first)
    assert np.array_equal(first, again)
    assert same_arrays(named_leaves(params), named_leaves(after))


def test_training_uses_the_key_for_dropout_and_changes_only_the_statistics(network):
    x = jax.random.normal(jax.random.key(0), (3, 1, SIDE, SIDE))
    _, params = network(x, key=jax.random.key(1))
    apply = jax.jit(partial(network, train=True))
    first, moved = apply(x, params=params, key=jax.random.key(2))
    again, _ = apply(x, params=params, key=jax.random.key(2))
    other, _ = apply(x, params=params, key=jax.random.key(3))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-2)
    assert jax.tree.structure(params) == jax.tree.structure(moved)
    weights, stats = ([named_leaves(part) for part in split(tree)] for tree in (params, moved))
    assert same_arrays(weights[0], stats[0])
    assert weights[1].keys() == stats[1].keys() != set()
    assert any(not np.array_equal(stats[1][name], weights[1][name]) for name in stats[1])


def test_the_names_of_weights_contain_the_layer(network):
    _, params = network(jnp.zeros((1, 1, SIDE, SIDE)), key=jax.random.key(0))
    names = [name for name in named_leaves(params) if name.startswith("weights/")]
    assert len(names) == 12
    assert all(len(name.split("/")) == 3 for name in names)


def test_updates_and_evaluation_equal_those_of_the_librarys_own_loop(config, library, write_config):
    config["training"]["optimizer"] = {"name": "sgd", "args": {"learning_rate": 0.05}}
    experiment = build(read_config(write_config(config)))
    state = experiment.init(first_batch(experiment))
    own, step = LOOPS[library](jax.tree.map(jnp.copy, state.params), optax.sgd(0.05))
    images, labels = normalized(experiment)
    for number, batch in zip(range(3), experiment.loaders["train"].batches(epoch=1), strict=False):
        key = jax.random.split(experiment.step_key(number))[1]  # the other half is for augmentation
        rows = slice(number * BATCH_SIZE, (number + 1) * BATCH_SIZE)
        state, _ = experiment.update(state, batch)
        own, _ = step(own, images[rows], labels[rows], key)
    weights, stats, logits = OWN[library](own, images[:BATCH_SIZE])
    ours = state.params["weights"], state.params["stats"]
    for here, theirs in zip(jax.tree.leaves(ours), jax.tree.leaves((weights, stats)), strict=True):
        np.testing.assert_allclose(here, theirs, rtol=2e-4, atol=2e-5)
    batch = next(experiment.loaders["train"].batches(epoch=1))
    np.testing.assert_allclose(
        experiment.evaluate(state.params, batch)[1], logits, rtol=1e-3, atol=1e-3
    )


def test_exported_files_have_the_librarys_own_logits(
    finished_run, library, network, mnist, tmp_path
):
    arguments = ["--name", library, "-w", str(finished_run), "--into", str(tmp_path)]
    assert convert_tflite.main(arguments) == 0
    config = read_config(finished_run / "config.json")
    experiment = build(config)
    template = experiment.init(first_batch(experiment)).params
    arrays = read(find(finished_run, prefer_best=True))[0]
    names = named_leaves(template)
    structure = jax.tree.structure(template)
    params = jax.tree.unflatten(structure, [arrays[f"params/{name}"] for name in names])
    images = next(experiment.loaders["test"].batches(epoch=1))["inputs"][:5]
    wanted, _ = network((images / np.float32(255) - 0.1307) / 0.3081, params=params)
    for suffix in (".onnx", ".tflite"):
        made = load(tmp_path / library / f"{library}{suffix}").run({"input": images})["logits"]
        np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-4)


def test_the_three_lines_in_the_readme_are_a_network():
    (shown,) = re.findall(r"```python\n(def .*?)```", README, re.DOTALL)
    names = {}
    exec("from flax import linen as nn\n" + shown, names)
    x = jax.random.normal(jax.random.key(0), (3, SIDE))
    made, params = names["perceptron"](x, key=jax.random.key(1))
    again, _ = names["perceptron"](x, params=params, train=True)
    assert made.shape == (3, CLASSES)
    assert np.array_equal(made, again)


def test_the_config_alone_makes_a_chain_of_optax(mnist, write_config, tmp_path):
    values = library_config("optax_chain", mnist, tmp_path)
    values["model"] = {"name": "mlp", "args": {"feat_dims": [16]}}
    experiment = build(read_config(write_config(values)))
    (group,) = experiment.groups.values()
    params = {"kernel": jnp.full((3, 2), 2.0), "bias": jnp.full((2,), 2.0)}
    grads = jax.tree.map(lambda leaf: 10 * leaf, params)
    state = group.optimizer.init(params)
    rates = np.append(0.02 * np.arange(100) / 100, 0.02)  # warm-up of a hundred updates
    for rate in rates:
        updates, state = group.optimizer.update(grads, state, params)
        # Adam divides a constant gradient by itself; only the matrix has weight decay.
        np.testing.assert_allclose(updates["bias"], -rate, rtol=1e-4)
        np.testing.assert_allclose(updates["kernel"], -rate * (1 + 0.1 * 2.0), rtol=1e-4)
    # Adam's averages are of gradients of length 1: they were clipped before.
    moments = next(one for one in state if hasattr(one, "mu"))
    assert optax.tree.norm(moments.mu) == pytest.approx(1 - 0.9 ** len(rates), rel=1e-4)


def test_the_chain_trains(mnist, write_config, tmp_path):
    path = write_config(library_config("optax_chain", mnist, tmp_path / "saved"))
    assert train.main(["-c", path]) == 0
    (metrics,) = (tmp_path / "saved").glob("*/*/metrics.jsonl")
    first, second = (line for line in map(json.loads, metrics.open()) if "test_loss" in line)
    assert second["epoch_train_loss"] < first["epoch_train_loss"]


def test_a_network_of_an_installed_package_is_named_by_package_and_function(
    mnist, write_config, test_script, monkeypatch, capsys, tmp_path
):
    """The package is outside the project, as after `pip install --target`."""
    packages = tmp_path / "site-packages"
    (packages / "our_networks").mkdir(parents=True)
    (packages / "our_networks" / "__init__.py").write_text("")
    (packages / "our_networks" / "small.py").write_text(PACKAGE)
    values = library_config("optax_chain", mnist, tmp_path / "saved")
    values["model"] = {"name": "our_networks.small:perceptron", "args": {"features": 8}}
    path = write_config(values)
    assert train.main(["-c", path]) == 1
    assert "no module 'our_networks'; is it installed?" in capsys.readouterr().err
    monkeypatch.syspath_prepend(packages)
    assert train.main(["-c", path]) == 1
    assert 'add "imports": ["our_networks"] to it, or --allow' in capsys.readouterr().err
    path = write_config(values | {"imports": ["our_networks"]})
    assert train.main(["-c", path]) == 0
    (run,) = (tmp_path / "saved").glob("*/*")
    assert test_script.main(["-w", str(run)]) == 0
    assert "accuracy @ 0." in capsys.readouterr().out
    assert train.main(["-c", path, "model.args.feature=8"]) == 1
    expected = "perceptron takes no argument 'feature'; did you mean 'features'?"
    assert expected in capsys.readouterr().err


PACKAGE = """
import jax

def perceptron(x, features, *, params=None, key=None, train=False):
    x = x.reshape(x.shape[0], -1)
    if params is None:
        hidden, out = jax.random.split(key)
        params = {
            "hidden": jax.random.normal(hidden, (x.shape[1], features)) / x.shape[1] ** 0.5,
            "out": jax.random.normal(out, (features, 10)) / features**0.5,
        }
    return jax.nn.relu(x @ params["hidden"]) @ params["out"], params
"""


def _nnx(state, images):
    from flax import nnx

    model = state[0]
    model.eval()
    weights, stats = nnx.state(model, nnx.Param), nnx.state(model, nnx.BatchStat)
    logits = model(jnp.moveaxis(images, 1, -1))
    return nnx.to_pure_dict(weights), nnx.to_pure_dict(stats), logits


def _linen(state, images):
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = state.apply_fn(variables, jnp.moveaxis(images, 1, -1), train=False)
    return state.params, state.batch_stats, logits


def _haiku(state, images):
    import haiku as hk

    from examples.libraries.haiku_cnn import logits

    weights, stats, _ = state
    x = jnp.moveaxis(images, 1, -1)
    network = hk.transform_with_state(logits)
    return weights, stats, network.apply(weights, stats, None, x, FEATURES, CLASSES, False)[0]


def _equinox(state, images):
    import equinox as eqx

    model, stats, _ = state
    alone = eqx.nn.inference_mode(model)
    logits = jax.vmap(lambda x: alone(x, stats, None)[0])(images)
    return eqx.filter(model, eqx.is_inexact_array), stats, logits


# After the library's own loop: (weights, statistics, logits in evaluation).
OWN = {"nnx": _nnx, "linen": _linen, "haiku": _haiku, "equinox": _equinox}
