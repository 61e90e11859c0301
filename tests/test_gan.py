"""The example in examples/gan: two networks that train each other, by two rules of a config."""

import json
import shutil
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import BATCH_SIZE, ROOT, same_arrays
from PIL import Image

import train
from data_loader.dataloader import IdxImages
from examples.gan import sample
from examples.gan.gan import discriminator_loss, fooled, gan, generator_loss
from training.build import build
from training.checkpoint import read
from training.config import read_config

LOSSES = {"generator": generator_loss, "discriminator": discriminator_loss}
TINY = {"noise_size": 8, "generator_features": 8, "discriminator_features": 2}
SIDE = 28  # pixels
GRID = "--rows", 2, "--columns", 3


class InterruptedImages(IdxImages):
    """Sends Ctrl-C to its process as the 12th batch is read, in the middle of the second epoch."""

    reads = 0

    def __getitems__(self, indices):
        self.reads += 1
        if self.reads == 12:
            signal.raise_signal(signal.SIGINT)
        return super().__getitems__(indices)


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


@pytest.fixture
def run_own_sample(monkeypatch):
    """Runs sample.py in this process; it leaves the run's folder on the path."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    return lambda *arguments: sample.main([str(argument) for argument in arguments])


def gan_config(mnist, save_dir):
    """The example's own config, with tiny networks on the small data."""
    values = json.loads((ROOT / "examples" / "gan" / "config.json").read_text())
    values["model"]["args"] |= TINY
    for split in ("train", "test"):
        args = values["data_loader"][split]["args"]
        args["dataset"]["args"] = {"root": str(mnist), "split": split}
        args["batch_size"] = BATCH_SIZE
    values["training"] |= {"epochs": 2, "save_dir": str(save_dir), "log_interval": 3}
    return values


def test_losses_and_metric_say_what_the_probabilities_say():
    real, fake = np.array([0.3, -2.0]), np.array([1.5, -0.5])
    outputs = {"real": jnp.asarray(real), "fake": jnp.asarray(fake)}
    chance_real, chance_fake = (1 / (1 + np.exp(-logits)) for logits in (real, fake))
    np.testing.assert_allclose(generator_loss(outputs, None), -np.log(chance_fake), rtol=1e-6)
    truth = -np.log(chance_real) - np.log(1 - chance_fake)
    np.testing.assert_allclose(discriminator_loss(outputs, None), truth, rtol=1e-6)
    assert fooled(outputs, None).tolist() == [1.0, 0.0]


def test_pictures_that_come_in_and_go_out_have_one_shape_and_scale():
    pictures = jnp.zeros((3, 2, 8, 12))
    outputs, params = gan(pictures, **TINY, key=jax.random.key(0))
    assert outputs["images"].shape == pictures.shape
    assert jnp.abs(outputs["images"]).max() <= 1
    assert outputs["real"].shape == outputs["fake"].shape == (3,)
    assert params.keys() == LOSSES.keys()


def test_evaluation_ignores_the_key_and_training_draws_noise_from_it():
    pictures = jnp.zeros((3, 1, SIDE, SIDE))
    initial, params = gan(pictures, **TINY, key=jax.random.key(0))

    def outputs(**named):
        return gan(pictures, **TINY, params=params, **named)[0]

    first, second = jax.random.key(1), jax.random.key(2)
    assert same_arrays(outputs(), initial)
    assert same_arrays(outputs(key=first), outputs(key=second))
    noisy = outputs(key=first, train=True), outputs(key=second, train=True)
    assert not np.array_equal(noisy[0]["images"], noisy[1]["images"])
    with pytest.raises(ValueError, match="noise needs a key"):
        outputs(train=True)


@pytest.mark.parametrize("idle", list(LOSSES))
def test_a_rule_moves_its_own_part_and_no_other(config, write_config, idle):
    config["training"]["rules"][idle]["optimizer"]["args"]["learning_rate"] = 0.0
    parts = build(read_config(write_config(config)))
    batches = [*parts.loaders["train"].batches(epoch=1)]
    state = parts.init(batches[0])
    before = jax.device_get(state.params)
    for batch in batches:
        state, _ = parts.update(state, batch)
    for part in LOSSES:
        pairs = zip(jax.tree.leaves(before[part]), jax.tree.leaves(state.params[part]), strict=True)
        moved = [old.tobytes() != np.asarray(new).tobytes() for old, new in pairs]
        assert moved and not any(moved) if part == idle else all(moved)


def test_an_update_takes_the_gradient_of_each_loss_by_its_own_part(config, write_config):
    rate = 0.5
    for rule in config["training"]["rules"].values():
        rule["optimizer"] = {"name": "sgd", "args": {"learning_rate": rate}}
    parts = build(read_config(write_config(config)))
    *_, batch = parts.loaders["train"].batches(epoch=1)
    real = batch["weight"] > 0
    assert 0 < real.sum() < BATCH_SIZE  # the padding must count for nothing
    state = parts.init(batch)
    before = jax.device_get(state.params)
    key = jax.random.split(parts.step_key(0))[1]  # the first half is for the augmentation
    pictures = jnp.asarray(batch["inputs"], jnp.float32) / 127.5 - 1

    def gradient(part, loss):
        def mean(params):
            given = before | {part: params}
            outputs, _ = gan(pictures, **TINY, params=given, key=key, train=True)
            return loss(outputs, None)[real].mean()

        return jax.jit(jax.grad(mean))(before[part])

    state, _ = parts.update(state, batch)
    for part, loss in LOSSES.items():
        taken = jax.tree.map(lambda old, new: (old - new) / rate, before[part], state.params[part])
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5),
            taken,
            gradient(part, loss),
        )
    # The discriminator's loss does depend on the generator: that gradient was there to be taken.
    assert optax.global_norm(gradient("generator", discriminator_loss)) > 0.01


def test_it_trains_through_train_py_as_it_is(finished_run):
    lines = map(json.loads, (finished_run / "metrics.jsonl").read_text().splitlines())
    epochs = [line for line in lines if "test_generator_loss" in line]
    assert [line["epoch"] for line in epochs] == [1, 2]
    assert all(np.isfinite(value) for line in epochs for value in line.values())
    assert all(0 <= line["test_fooled"] <= 1 for line in epochs)
    assert (finished_run / "report.html").exists()
    assert (finished_run / "examples" / "gan" / "gan.py").exists()


def test_a_run_stopped_within_an_epoch_and_resumed_ends_with_the_same_bits(
    config, run, finished_run
):
    dataset = config["data_loader"]["train"]["args"]["dataset"]
    dataset["name"] = f"{__name__}:InterruptedImages"
    code, folder = run()
    assert code == 128 + signal.SIGINT
    assert (folder / "checkpoint-epoch_2-batch_3.params").exists()
    code, folder = run("--resume", str(folder), "data_loader.train.args.dataset.name=IdxImages")
    assert code == 0
    resumed, whole = (read(one / "checkpoint-epoch_2.params") for one in (folder, finished_run))
    assert same_arrays(resumed[0], whole[0])
    assert resumed[1] == whole[1]
    metrics = [(one / "metrics.jsonl").read_text() for one in (folder, finished_run)]
    assert metrics[0] == metrics[1]


def test_check_shows_both_networks_and_leaves_nothing(run, capsys):
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


def test_sample_uses_the_code_that_the_run_kept(finished_run, script, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    code = folder / "examples" / "gan" / "gan.py"
    text = code.read_text()
    assert text.count("jnp.tanh(x)") == 1
    code.write_text(text.replace("jnp.tanh(x)", "jnp.ones_like(x)"))  # makes white pictures
    out = tmp_path / "white.png"
    done = script(ROOT / "examples/gan/sample.py", "-w", folder, "--out", out, *GRID, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(out)).min() == 255


def test_sample_says_what_is_wrong(finished_run, run_own_sample, tmp_path, capsys):
    assert run_own_sample("-w", tmp_path) == 1
    assert f"error: {tmp_path}: there is no checkpoint here" in capsys.readouterr().err
    nowhere = tmp_path / "nowhere" / "digits.png"
    assert run_own_sample("-w", finished_run, "--out", nowhere, *GRID) == 1
    assert f"error: {nowhere}: cannot write a picture there" in capsys.readouterr().err
