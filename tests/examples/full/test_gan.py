"""The example in examples/gan: two networks trained by two optimizer groups of a config."""

import json
import shutil
import signal
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import train
from examples.gan import sample
from examples.gan.gan import discriminator_loss, fooled, gan, generator, generator_loss
from inference import convert_tflite
from inference.verify.runtimes import load
from tests.helpers.examples import GAN, gan_config
from tests.helpers.project import BATCH_SIZE, ROOT, same_arrays
from training.checkpoint.naming import find
from training.checkpoint.reading import read
from training.checkpoint.restore import network_params
from training.config import read_config
from training.engine.build import build

LOSSES = {"generator": generator_loss, "discriminator": discriminator_loss}
RATES = {"generator": (0.5, 0.0, 0.5), "discriminator": (0.0, 0.5, 0.5)}  # of three updates
SIDE = 28  # pixels
GRID = "--rows", 2, "--columns", 3


@pytest.fixture
def config(mnist, tmp_path):
    return gan_config(mnist, tmp_path / "saved")


@pytest.fixture(scope="module")
def finished_run(mnist, tmp_path_factory):
    """The folder of a run of two epochs."""
    folder = tmp_path_factory.mktemp("gan")
    path = folder / "config.json"
    path.write_text(json.dumps(gan_config(mnist, folder / "saved")))
    assert train.main(["-c", str(path)]) == 0
    return next((folder / "saved" / "MNIST_GAN").iterdir())


@pytest.fixture(scope="module")
def updates(mnist, tmp_path_factory):
    """Three updates, one group idle in each of the first two: (before, after, batch, key) each."""
    folder = tmp_path_factory.mktemp("updates")
    values = gan_config(mnist, folder)
    for part, group in values["training"]["optimizer_groups"].items():
        rate = {"name": f"{__name__}:{part}_rate"}
        group["optimizer"] = {"name": "sgd", "args": {"learning_rate": rate}}
    (folder / "config.json").write_text(json.dumps(values))
    experiment = build(read_config(folder / "config.json"))
    *_, batch = experiment.loaders["train"].batches(epoch=1)
    assert 0 < batch["weight"].sum() < BATCH_SIZE  # with padding, which must not count
    state = experiment.init(batch)
    done = []
    for number in range(3):
        before = jax.device_get(state.params)
        state, _ = experiment.update(state, batch)
        done.append((before, jax.device_get(state.params), batch, experiment.step_key(number)))
    return done


@pytest.fixture
def run_own_sample(monkeypatch):
    """Runs sample.py in this process, and removes the run's folder from sys.path afterwards."""
    return lambda *arguments: sample.main([str(argument) for argument in arguments])


def no_images(x, *, params=None, key=None, train=False):
    """A network with the same parameters that returns no images among its outputs."""
    outputs, params = gan(x, **GAN, params=params, key=key, train=train)
    del outputs["images"]
    return outputs, params


def logits_alone(x, *, params=None, key=None, train=False):
    """A network with the same parameters that returns an array."""
    outputs, params = no_images(x, params=params, key=key, train=train)
    return outputs["real"], params


def fits_any(outputs, targets):
    """A loss of every output."""
    return jnp.zeros(targets.shape)


def generator_rate(count):
    return jnp.array(RATES["generator"])[count]


def discriminator_rate(count):
    return jnp.array(RATES["discriminator"])[count]


@partial(jax.jit, static_argnames="loss")
def gradient_of(loss, params, batch, key):
    """Returns the gradient of one loss by all parameters, computed without the framework."""
    images = batch["inputs"].astype(jnp.float32) / 127.5 - 1
    key = jax.random.split(key)[1]  # the other half is for augmentation

    def mean(params):
        outputs, _ = gan(images, **GAN, params=params, key=key, train=True)
        return (loss(outputs, None) * batch["weight"]).sum() / batch["weight"].sum()

    return jax.grad(mean)(params)


def test_losses_and_metric_follow_from_the_probabilities():
    real, fake = np.array([0.3, -2.0]), np.array([1.5, -0.5])
    outputs = {"real": jnp.asarray(real), "fake": jnp.asarray(fake)}
    chance_real, chance_fake = (1 / (1 + np.exp(-logits)) for logits in (real, fake))
    np.testing.assert_allclose(generator_loss(outputs, None), -np.log(chance_fake), rtol=1e-6)
    truth = -np.log(chance_real) - np.log(1 - chance_fake)
    np.testing.assert_allclose(discriminator_loss(outputs, None), truth, rtol=1e-6)
    assert fooled(outputs, None).tolist() == [1.0, 0.0]


def test_generated_images_have_the_shape_of_the_real_ones():
    images = jax.ShapeDtypeStruct((3, 2, 8, 12), jnp.float32)
    network = partial(gan, **GAN, key=jax.random.key(0))
    outputs, params = jax.eval_shape(network, images)
    assert outputs["images"].shape == images.shape
    assert outputs["real"].shape == outputs["fake"].shape == (3,)
    assert params.keys() == LOSSES.keys()
    with pytest.raises(ValueError, match=r"generator.*8 x 14 pixels, expected multiples of 4"):
        jax.eval_shape(network, jax.ShapeDtypeStruct((3, 1, 8, 14), jnp.float32))


def test_evaluation_ignores_the_key_and_training_draws_noise_from_it(updates):
    params = updates[0][0]
    real = jnp.zeros((3, 1, SIDE, SIDE))

    @partial(jax.jit, static_argnames="train")
    def outputs(key, train):
        return gan(real, **GAN, params=params, key=key, train=train)[0]

    first, second = jax.random.key(1), jax.random.key(2)
    assert same_arrays(outputs(first, False), outputs(second, False))
    images = outputs(first, True)["images"]
    assert not np.array_equal(images, outputs(second, True)["images"])
    assert np.abs(images).max() <= 1
    with pytest.raises(ValueError, match="noise needs a key"):
        outputs(None, True)


def test_an_optimizer_group_changes_only_its_own_parameters(updates):
    for part in LOSSES:
        for taken, (before, after, _, _) in enumerate(updates[:2]):
            pairs = zip(jax.tree.leaves(before[part]), jax.tree.leaves(after[part]), strict=True)
            moved = [old.tobytes() != new.tobytes() for old, new in pairs]
            assert moved and all(moved) if RATES[part][taken] else not any(moved)


def test_an_update_uses_the_gradient_of_each_loss_by_its_own_parameters(updates):
    for taken, (before, after, batch, key) in enumerate(updates):
        for part, loss in LOSSES.items():
            step = jax.tree.map(lambda old, new: old - new, before[part], after[part])
            gradient = gradient_of(loss, before, batch, key)[part]
            expected = jax.tree.map(lambda leaf, rate=RATES[part][taken]: rate * leaf, gradient)
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), step, expected)


def test_the_gradient_of_the_discriminators_loss_by_the_generator_is_not_zero(updates):
    before, _, batch, key = updates[0]
    gradient = gradient_of(discriminator_loss, before, batch, key)["generator"]
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(gradient))


def test_train_py_trains_it(finished_run):
    lines = map(json.loads, (finished_run / "metrics.jsonl").read_text().splitlines())
    epochs = [line for line in lines if "test_generator_loss" in line]
    assert [line["epoch"] for line in epochs] == [1, 2]
    assert all(np.isfinite(value) for line in epochs for value in line.values())
    assert all(0 <= line["test_fooled"] <= 1 for line in epochs)
    assert (finished_run / "report.html").exists()
    assert (finished_run / "examples" / "gan" / "gan.py").exists()


def test_a_run_stopped_within_an_epoch_and_resumed_ends_with_the_same_bits(
    config, run, finished_run, monkeypatch
):
    config["data_loader"]["train"]["args"]["dataset"]["name"] = "tests.helpers.networks:Signalling"
    monkeypatch.setenv("SIGNAL_AT", "SIGINT@11")  # the first epoch reads 1-8
    code, folder = run()
    assert code == 128 + signal.SIGINT
    assert (folder / "checkpoint-epoch_2-batch_2.params").exists()
    monkeypatch.delenv("SIGNAL_AT")
    code, folder = run("--resume", str(folder))
    assert code == 0
    arrays = [read(one / "checkpoint-epoch_2.params")[0] for one in (folder, finished_run)]
    assert same_arrays(*arrays)
    metrics = [(one / "metrics.jsonl").read_text() for one in (folder, finished_run)]
    assert metrics[0] == metrics[1]


def test_check_shows_both_networks_and_leaves_no_files(run, capsys):
    code, folder = run("--check")
    printed = capsys.readouterr().out
    assert code == 0
    assert folder is None
    assert "generator/seed" in printed
    assert "discriminator/head" in printed
    assert "All is well." in printed


def test_sample_draws_a_grid_that_depends_on_the_seed_alone(finished_run, run_own_sample, tmp_path):
    def drawn(name, seed):
        out = tmp_path / name
        assert run_own_sample("-w", finished_run, "--out", out, *GRID, "--seed", seed) == 0
        return Image.open(out)

    first, again, other = drawn("a.png", 0), drawn("b.png", 0), drawn("c.png", 1)
    assert first.size == (3 * SIDE, 2 * SIDE)
    assert first.mode == "L"
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_sample_uses_the_runs_own_copy_of_the_code(finished_run, script, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    code = folder / "examples" / "gan" / "gan.py"
    text = code.read_text()
    assert text.count("jnp.tanh(x)") == 1
    code.write_text(text.replace("jnp.tanh(x)", "jnp.ones_like(x)"))  # makes white pictures
    out = tmp_path / "white.png"
    command = [ROOT / "examples/gan/sample.py", "-w", folder, "--out", out, *GRID]
    done = script(*command, cwd=tmp_path)
    assert done.returncode == 1
    assert "What would run: examples/gan/gan.py. Look at it, then add --trust" in done.stderr
    assert not out.exists()
    done = script(*command, "--trust", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(out)).min() == 255


def test_sample_reports_errors(finished_run, run_own_sample, tmp_path, capsys):
    assert run_own_sample("-w", tmp_path) == 1
    assert f"error: {tmp_path}: there is no checkpoint here" in capsys.readouterr().err
    nowhere = tmp_path / "nowhere" / "digits.png"
    assert run_own_sample("-w", finished_run, "--out", nowhere, *GRID) == 1
    assert f"error: {nowhere}: cannot write a picture there" in capsys.readouterr().err


@pytest.mark.parametrize("network", [no_images, logits_alone])
def test_sample_refuses_a_network_that_returns_no_images(
    network, finished_run, run_own_sample, tmp_path, capsys
):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["model"] = {"name": f"{__name__}:{network.__name__}"}
    config["training"]["metrics"] = []  # these and the losses are tried before
    for group in config["training"]["optimizer_groups"].values():
        group["loss"] = f"{__name__}:fits_any"
    (folder / "config.json").write_text(json.dumps(config))
    assert run_own_sample("-w", folder) == 1
    assert f"its network {__name__}:{network.__name__} makes no images" in capsys.readouterr().err


def test_the_generator_is_exported_alone_and_makes_the_same_images(finished_run, tmp_path):
    arguments = ["--name", "generator", "-w", str(finished_run), "--into", str(tmp_path)]
    part = ["--part", "generator", "--input", "noise=(1, 8) float32"]
    model = ["model.name=examples.gan.gan:generator",
             'model.args={"shape": [1, 28, 28], "features": 8}']  # fmt: skip
    limit = ["--limit", "float32.error=1e-4"]  # normalising noise loses digits
    assert convert_tflite.main([*arguments, *part, *model, *limit]) == 0
    noise = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    params = {}
    for name, array in network_params(read(find(finished_run, prefer_best=True))[0]).items():
        *path, last = name.split("/")
        inner = params
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = array
    wanted, _ = generator(noise, (1, SIDE, SIDE), 8, params=params["generator"])
    for suffix in (".onnx", ".tflite"):
        made = load(tmp_path / "generator" / f"generator{suffix}").run({"noise": noise})["output"]
        np.testing.assert_allclose(made, wanted, atol=1e-4)
