"""The examples whose loss has parts, and whose metric is over the epoch."""

import json

import numpy as np
import pytest

import test as test_script
import train
from data_loader.dataloader import IdxImages
from examples.contrastive.contrastive import neighbours, simclr
from inference import convert_tflite
from inference.verify.runtimes import load
from tests.helpers.examples import parts_config
from tests.helpers.project import ROOT, same_arrays
from training.checkpoint.naming import find
from training.checkpoint.reading import read
from training.common.records import read_lines

KEYS = {"vae": {"test_reconstruction", "validation_kl"}, "contrastive": {"test_neighbours"}}


@pytest.mark.parametrize("name", ["vae", "contrastive"])
def test_the_example_trains_resumes_to_the_bit_is_evaluated_exported_and_predicted(
    name, mnist, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(ROOT)
    folders = []
    for case in ("whole", "resumed"):
        values = parts_config(name, mnist, tmp_path / case)
        path = tmp_path / f"{case}.json"
        path.write_text(json.dumps(values))
        short = ["training.epochs=1"] if case == "resumed" else []
        assert train.main(["-c", str(path), *short]) == 0
        folders.append(next((tmp_path / case).glob("*/*")))
    assert train.main(["--resume", str(folders[1]), "training.epochs=2"]) == 0
    lines = [read_lines(one / "metrics.jsonl") for one in folders]
    assert lines[0] == lines[1]
    assert KEYS[name] <= lines[0][-1].keys()
    arrays = [read(find(one, prefer_best=False))[0] for one in folders]
    assert same_arrays(*arrays)
    assert test_script.main(["-w", str(folders[0]), "--predictions", "all.npz"]) == 0
    predicted = np.load(folders[0] / "all.npz")
    assert (
        convert_tflite.main(["--name", name, "-w", str(folders[0]), "--into", str(tmp_path)]) == 0
    )
    images = np.stack([IdxImages(str(mnist), "test")[index][0] for index in range(4)])
    made = load(tmp_path / name / f"{name}.onnx").run({"input": images})
    for output, array in made.items():
        np.testing.assert_allclose(array, predicted[f"output_{output}"][:4], rtol=1e-3, atol=1e-4)


def test_the_neighbours_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.neighbors")
    random = np.random.default_rng(0)
    points, labels = random.normal(size=(1500, 4)).astype(np.float32), random.integers(0, 3, 1500)
    points += 0.5 * labels[:, None]
    near = sklearn.NearestNeighbors(n_neighbors=2, metric="cosine").fit(points)
    closest = near.kneighbors(points, return_distance=False)[:, 1]
    expected = (labels[closest] == labels).mean()
    assert neighbours({"embedding": points}, labels) == pytest.approx(expected, abs=0.002)


def test_two_views_are_drawn_in_training_alone():
    import jax

    images = np.random.default_rng(0).random((2, 1, 28, 28)).astype(np.float32)
    _, params = simclr(images, features=4, key=jax.random.key(0))
    views, _ = simclr(images, features=4, params=params, key=jax.random.key(1), train=True)
    plain, _ = simclr(images, features=4, params=params)
    assert not np.allclose(views["views"][:, 0], views["views"][:, 1])
    np.testing.assert_array_equal(plain["views"][:, 0], plain["views"][:, 1])
