"""What newcomers do wrong: each gets one message that says where it is and how to fix it."""

import functools
import json
import os
import re

import numpy as np
import pytest

import train
from tests.helpers import mistakes
from tests.helpers.project import ROOT, by_set
from training.common.measure import FunctionError
from training.engine.user_code import wrap_user_function
from training.loss import mean_squared_error
from training.metrics import top_k_accuracy

DATASET = "data_loader.train.args.dataset"
NETWORKS = [
    ("for_other_pictures",  # of another size
     ["model: for_other_pictures of inputs float32 (128, 1, 28, 28): cannot reshape",
      "tests/helpers/mistakes.py:", "x = x.reshape(len(x), 3 * 32 * 32)"]),
    ("output_alone",  # without params
     ["model: output_alone returned float32 (128, 10); expected two things",
      "return outputs, layer.params"]),
    ("old_params",  # those that came in, which are None at first
     ["model: old_params returned NoneType as its params", "return outputs, layer.params"]),
    ("key_forgotten",
     ["params=None makes new parameters, and that needs a key", "Layers(params, None, train)"]),
    ("key_not_passed_on",
     ["dropout: dropping at random needs a key", "tests/helpers/mistakes.py:"]),
    ("without_train",  # in its signature
     ["model.name: without_train takes no 'train'", "at the end of its arguments, after a *"]),
    ("with_numpy",
     ["use jax.numpy in place of numpy", "np.asarray(x)"]),
    ("with_if",  # on a value
     ["use jnp.where or jax.lax.cond in place of if", "if x.mean() > 0:"]),
    ("remembering",  # impure
     ["the function must be pure", "tests/helpers/mistakes.py:"]),
    ("growing",  # has parameters in training that it has not made
     ["parameter extra is missing", "layer.array(\"extra\""]),
    ("one_output",  # for ten classes
     ["the network has 1 output, which tells no classes apart"]),
]  # fmt: skip
DATA = [
    ("FromOne",
     ["has the label 10 (int32), expected a whole number from 0 to 9", "Count classes from 0"]),
    ("InputsAlone", ["a sample is ndarray; expected (input, target)", "__getitem__"]),
    ("NoLength", ["DataLoader(NoLength): the data set has no length; expected `__len__`"]),
    ("Words", ["are <U1; expected numbers", "`classes`, the texts in their"]),
    ("FloatLabels", ["accuracy of outputs float32 (128, 10), targets float32",
                     "labels are float32, expected integers"]),
    ("WithNan", ["batch 6 (update 7): the inputs of example 17 are not finite (nan at [0, 3, 4])"]),
]  # fmt: skip
OVERRIDES = [
    ([f'{DATASET}={{"name":"tests.helpers.mistakes:FromOne"}}'],  # the class in place of a data set
     ["dataset is the class FromOne; expected a data set", '{"name": ..., "args": {}}']),
    (["training.loss=tests.helpers.mistakes:mean_loss"],
     ["training.loss: mean_loss", "returned shape (); expected a value for each of the 128"]),
    (["training.metrics=[\"tests.helpers.mistakes:mean_loss\"]", "training.monitor=min test_loss"],
     ["training.metrics.0: mean_loss", "returned shape (); expected a value for each of the 128"]),
    (["training.loss=mean_squared_error"],  # of logits and classes
     ["training.loss: mean_squared_error", "outputs have shape (128, 10), but targets (128,)"]),
    (["training.loss=binary_cross_entropy", 'model={"name": "tests.helpers.mistakes:one_output"}'],
     ["accuracy of outputs float32 (128, 1), targets", "use binary_cross_entropy and targets of"]),
    (["training.optimizer.args.learning_rate=NaN"], ["NaN is no number to train with"]),
    (["training.optimizer.args.learning_rate=fast"],
     ["training.optimizer.args.learning_rate: expected a number, or a schedule", "got 'fast'"]),
    (["training.optimizer.args={}"], ["missing a required argument: 'learning_rate'"]),
    (["training.metrics=[\"acuracy\"]"], ["training.metrics.0.name", "did you mean 'accuracy'?"]),
    (["training.monitor=max test_acuracy"], ["did you mean 'test_accuracy'?"]),
    (["model=3"], ['model: expected an object {"name": ..., "args": ...}, got 3']),
    (["model.args.feat_dims=16"],  # a number in place of a list
     ["model: mlp of inputs", "'int' object is not iterable", "for index, features in enumerate"]),
    (["training.epochs", "=", "3"], ["expected key.path=value, like training.epochs=3"]),
    (["data_loader.train.args.batch_size=5000"], ["only 1000 examples", "Lower batch_size"]),
]  # fmt: skip
# What is written in the file in place of the folder of the data, in quotes.
TEXTS = [
    (r'"C:\data\mnist"', ["not valid JSON", "Write a backslash twice, or a / in its place"]),
    (r'"C:\new\test"', [r"'C:\new\test' is no path", "Write a backslash twice, or a /"]),
    ("'data'", ["not valid JSON", "double quotes around every text"]),
    ('"data", // here', ["not valid JSON", "no comments"]),
    ("None", ["not valid JSON", "true, false and null"]),
    ("Infinity", ["Infinity is no number to train with"]),
]  # fmt: skip


@pytest.fixture
def refused(config, write_config, monkeypatch, capsys, tmp_path):
    """Runs train.py and returns what it said; it must have refused, in one message."""
    monkeypatch.chdir(ROOT)
    mistakes.seen.clear()

    def refused(*arguments, path=None):
        assert train.main(["-c", path or write_config(config), *arguments]) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert "Traceback" not in said
        assert len(said.splitlines()) == 1
        assert len(said) < 700
        return said

    return refused


@pytest.mark.parametrize(("name", "expected"), by_set(NETWORKS[:8], NETWORKS))
def test_a_mistake_in_a_network(refused, config, name, expected):
    config["model"] = {"name": f"tests.helpers.mistakes:{name}"}
    said = refused()
    assert all(words in said for words in expected), said


@pytest.mark.parametrize(("name", "expected"), by_set(DATA[:5], DATA))
def test_a_mistake_in_a_data_set(refused, config, name, expected):
    for split in ("train", "test"):
        dataset = config["data_loader"][split]["args"]["dataset"]
        dataset["name"] = f"tests.helpers.mistakes:{name}"
    said = refused()
    assert all(words in said for words in expected), said


@pytest.mark.parametrize(("arguments", "expected"), OVERRIDES)
def test_a_mistake_in_a_config(refused, arguments, expected):
    said = refused(*arguments)
    assert all(words in said for words in expected), said


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_a_mistake_in_what_the_file_holds(refused, config, tmp_path, text, expected):
    root = json.dumps(config["data_loader"]["train"]["args"]["dataset"]["args"]["root"])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config, indent=1).replace(root, text, 1))
    said = refused(path=str(path))
    assert all(words in said for words in expected), said


@pytest.mark.parametrize("name", ["for_other_pictures", "output_alone", "with_if", "growing"])
def test_a_run_that_cannot_begin_leaves_no_folder(refused, config, name):
    config["model"] = {"name": f"tests.helpers.mistakes:{name}"}
    refused()
    assert not [files for _, _, files in os.walk(config["training"]["save_dir"]) if files]


def test_a_path_of_windows_on_the_command_line_is_taken_as_it_is(refused):
    said = refused(rf"{DATASET}.args.root=C:\new\mnist")
    assert r"C:\new\mnist" in said
    assert "train-images" in said or "not" in said


def test_an_error_in_the_users_own_losses_is_reported_with_its_line():
    """training/loss.py and its like are the user's; the folders beside them are not."""
    of_twenty = functools.partial(top_k_accuracy, k=20)
    metric = wrap_user_function(of_twenty, "top_k_accuracy", "metric", "training.metrics.0")
    with pytest.raises(FunctionError) as error:
        metric(np.zeros((4, 10), np.float32), np.zeros(4, np.int32))
    line = re.search(r"\(training/metrics\.py:(\d+): (.+)\)", str(error.value))
    source = (ROOT / "training" / "metrics.py").read_text().splitlines()
    assert source[int(line[1]) - 1].strip() == line[2]
    assert "top_k" in line[2]


def test_what_a_loss_refuses_in_its_own_words_needs_no_line():
    loss = wrap_user_function(mean_squared_error, "mean_squared_error", "loss", "training.loss")
    with pytest.raises(FunctionError, match=r"outputs have shape .*, but targets \(4,\)$"):
        loss(np.zeros((4, 1), np.float32), np.zeros(4, np.float32))
