"""The config: what is wrong is reported in one line, before JAX is imported."""

import contextlib
import copy
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import utils
from tests.helpers.project import ROOT, by_set
from training import config as configs
from training.common.config_file import USUAL_KEYS, _paths
from training.config import Config, Named, as_overrides, read_config
from training.engine.binding import bind, construct
from utils import UserError, check_arguments

SAMPLE = "config.json"


def change(values, path, value):
    values = copy.deepcopy(values)
    *parents, last = path.split(".")
    inner = values
    for key in parents:
        inner = inner[key]
    if value is KeyError:
        del inner[last]
    else:
        inner[last] = value
    return values


@pytest.fixture(scope="module")
def sample():
    with open(SAMPLE) as file:
        return json.load(file)


def test_the_sample_is_valid_and_survives_being_written_and_read(tmp_path):
    config = read_config(SAMPLE)
    configs.write_config(config, tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == config


def test_the_written_config_spells_out_every_default(tmp_path, sample):
    configs.write_config(read_config(SAMPLE), tmp_path / "config.json")
    written = json.loads((tmp_path / "config.json").read_text())
    assert "accumulate" not in sample["training"]
    assert written["training"]["accumulate"] == 1
    assert written["model"] == sample["model"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("modle", {}, "modle: unknown key; did you mean 'model'?"),
        ("[", 1, "[: unknown key"),
        ("training.epoch", 3, "training.epoch: unknown key; did you mean 'epochs'?"),
        ("data_loader.train.argz", {}, "data_loader.train.argz: unknown key; did you mean 'args'?"),
        ("training.epochs", "ten", "training.epochs: expected integer, got \"ten\""),
        ("training.epochs", 0, "training.epochs: expected greater than or equal to 1, got 0"),
        ("training.epochs", 2.5, "training.epochs: expected integer, got 2.5"),
        ("training.steps_per_call", 0, "training.steps_per_call: expected greater than or equal"),
        ("data_loader.cache_on_device", "yes", "cache_on_device: expected 'auto', True or False"),
        ("training.seeds", 2**32 + 1, "expected seed + training.seeds to be at most 2**32"),
        ("seed", -1, "seed: expected greater than or equal to 0, got -1"),
        ("model", KeyError, "model: missing"),
        ("title", "a/b", "title: expected"),
        ("title", "..", "title: expected"),
        ("training.compute_dtype", "float63", "training.compute_dtype: expected 'float32', "),
        ("training.loss", KeyError, "training: expected either loss and optimizer, or "
         "optimizer_groups"),
        ("training.optimizer_groups", {"a": {"loss": "x", "optimizer": "y"}},
         "either loss and optimizer"),
        ("model.name", "mnist_modl", "model.name: no model 'mnist_modl' in model/model.py; "
         "did you mean 'mnist_model'?"),
        ("training.loss", "cross_entropi", "training.loss.name: no loss 'cross_entropi' in "
         "training/loss.py or optax; did you mean 'cross_entropy'?"),
        ("training.metrics", ["acuracy"], "training.metrics.0.name: no metric 'acuracy' in "
         "training/metrics.py or training/library/metrics.py; did you mean 'accuracy'?"),
        ("training.optimizer.name", "adamww", "did you mean 'adamw'?"),
        ("training.optimizer.args.learning_rate.name", "cosine_decay_schedul",
         "training.optimizer.args.learning_rate.name: no optimizer 'cosine_decay_schedul'"),
        ("data_loader.train.name", "DataLoder", "did you mean 'DataLoader'?"),
        ("data_loader.augment", "random_shif", "did you mean 'random_shift'?"),
        ("model.name", "my model:f", "is not of the form 'package.module:function'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_reported_with_its_place(sample, write_config, path, value, message):
    file = write_config(change(sample, path, value))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_config(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_everything_wrong_is_reported_at_once(sample, write_config):
    values = change(change(sample, "training.epochs", "ten"), "sede", 1)
    with pytest.raises(UserError) as caught:
        read_config(write_config(values))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"title": a}', ":1:11: not valid JSON"),
        ("", ":1:1: not valid JSON"),
        ("[1]", "expected an object {...}, got list"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(message)):
        read_config(path)


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read the config: No such file"):
        read_config(tmp_path / "nowhere.json")
    with pytest.raises(UserError, match="cannot read the config: Is a directory"):
        read_config(tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a text file"):
        read_config(tmp_path / "binary.json")


def test_overrides_reach_any_depth_and_take_json_or_text():
    config = read_config(
        SAMPLE,
        ["training.epochs=3", "model.args.feat_dims=[8,16]", "title=My run", "training.metrics=[]",
         "data_loader.train.args.dataset.args.root=/else", "wandb.project=null"],
    )  # fmt: skip
    assert config.training.epochs == 3
    assert config.model.args["feat_dims"] == [8, 16]
    assert config.title == "My run"
    assert config.training.metrics == []
    assert config.data_loader.train.args["dataset"]["args"]["root"] == "/else"
    assert config.wandb.project is None


def test_an_override_can_go_below_a_bare_name():
    config = read_config(SAMPLE, ["training.loss.args.label_smoothing=0.1"])
    assert config.training.loss == Named(name="cross_entropy", args={"label_smoothing": 0.1})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "expected key.path=value"),
        ("training.epoch=3", "did you mean 'epochs'?"),
        ("training.metrics.5=accuracy", "expected an index below 1"),
        ("=3", "expected key.path=value"),
    ],
)
def test_a_wrong_override_is_refused(override, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_config(SAMPLE, [override])


@pytest.mark.parametrize(("path", "where"), [("", '""'), ("training.", 'training.""')])
def test_a_key_without_a_name_is_refused(sample, write_config, path, where):
    with pytest.raises(UserError, match=f"config.json: {where}: unknown key"):
        read_config(write_config(change(sample, path, 1)))


def places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from places(inner, (*path, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["adamw", "a.b:c", "total_steps", "min x", ":", "../x"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=by_set(15, 150))
@given(data=st.data())
def test_any_mutation_is_read_or_refused_with_a_message(tmp_path_factory, data):
    with open(SAMPLE) as file:
        values = json.load(file)
    path = data.draw(st.sampled_from(list(places(values))[1:]))
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    if data.draw(st.booleans()):
        inner[path[-1]] = data.draw(JSON)
    elif isinstance(inner, dict):
        inner[data.draw(st.text(max_size=8))] = inner.pop(path[-1])
    file = tmp_path_factory.mktemp("mutated") / "config.json"
    file.write_text(json.dumps(values))
    with contextlib.suppress(UserError):
        read_config(file)


def test_a_wrong_config_ends_the_script_before_jax_is_imported(script, sample, write_config):
    file = write_config(change(sample, "model.name", "mnist_modl"))
    code = f"import sys, train; print(train.main(['-c', {file!r}]), 'jax' in sys.modules)"
    done = script("-c", code)
    assert done.stdout == "1 False\n"
    assert "did you mean 'mnist_model'?" in done.stderr
    assert "Traceback" not in done.stderr


def network(x, width, depth=2, *, params=None, key=None, train=False):
    return x, params


def test_arguments_that_do_not_fit_a_signature_are_refused():
    given = ("x", "params", "key", "train")
    check_arguments(network, {"width": 3}, "here", given)
    with pytest.raises(UserError, match="here: network takes no argument 'widht'; did you mean"):
        check_arguments(network, {"widht": 3}, "here", given)
    with pytest.raises(UserError, match="missing a required argument: 'width'"):
        check_arguments(network, {}, "here", given)
    with pytest.raises(UserError, match="takes no argument 'key'"):
        check_arguments(network, {"width": 3, "key": 1}, "here", given)


def test_a_function_in_any_module_is_reached_by_its_full_name():
    named = Named(name="numpy:clip", args={"a_min": 0, "a_max": 1})
    assert bind(named, "transform", "config", 1)(5) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere.at_all:f", "no module 'nowhere'"), ("numpy:clipp", "did you mean 'clip'?"),
     ("numpy:pi", "is a float, expected a function")],
)  # fmt: skip
def test_a_full_name_that_leads_nowhere_is_refused(name, message):
    with pytest.raises(UserError, match=re.escape(message)):
        bind(Named(name=name), "loss", "config", 0)


def test_named_arguments_are_called_with_args_and_passed_without():
    schedule = construct(
        {"learning_rate": {"name": "cosine_decay_schedule",
                           "args": {"init_value": 2.0, "decay_steps": 10}}}, "optimizer", "config",
    )["learning_rate"]  # fmt: skip
    assert float(schedule(0)) == 2.0
    assert float(schedule(10)) == 0.0
    import optax

    assert construct({"name": "sgd"}, "optimizer", "config") is not optax.sgd
    assert construct([{"name": "adam"}], "optimizer", "config") == [optax.adam]


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("patience", "training.early_stop"),
        ("training.patience", "training.early_stop"),
        ("callbacks", "training.callbacks, a list of functions f(run)"),
        ("max_steps", "training.max_steps"),
        ("training.num_epochs", "training.epochs"),
        ("training.eval_every", "training.evaluate_every"),
        ("training.val_check_interval", "training.evaluate_every"),
        ("training.check_val_every_n_epoch", "training.evaluate_every"),
        ("training.save_steps", "training.save_every"),
        ("training.save_period", "training.save_every"),  # beside save_every, which is there
        ("training.log_every_n_steps", "training.log_every"),
        ("training.logging_steps", "training.log_every"),
        ("training.scheduler", "training.optimizer.args.learning_rate"),
        ("training.lr", "training.optimizer.args.learning_rate"),
        ("training.batch_size", "data_loader.train.args.batch_size"),
        ("training.max_epochs", "training.epochs"),
        ("device", "devices.count"),
        ("data_loader.num_workers", "data_loader.train.args.workers"),
        ("wandb_project", "wandb.project"),
        ("training.val-split", "data_loader.train.args.validation_split"),
        ("training.precision", "training.compute_dtype"),
        ("criterion", "training.loss"),
        ("optimizer", "training.optimizer"),  # a key that is there, in another section
        ("epochs", "training.epochs"),
        ("training.preprocess", "data_loader.preprocess"),
    ],
)
def test_a_key_of_other_projects_is_answered_with_the_one_that_does_it_here(sample, key, answer):
    with pytest.raises(UserError, match=re.escape(f"{key}: unknown key; here that is {answer}")):
        read_config(change(sample, key, 3))


def test_an_argument_outside_of_args_is_answered_with_its_place(sample):
    message = "model.classes: unknown key; arguments are in model.args"
    with pytest.raises(UserError, match=re.escape(message)):
        read_config(sample, ["model.classes=3"])


def test_every_answer_to_a_key_of_other_projects_is_a_place_in_a_config(sample):
    known = {"model", "title", "seed"} | set(_paths(Config))
    for answer in set(USUAL_KEYS.values()):
        named = re.findall(r"\b(?:model|training|data_loader|devices|wandb)\.[\w.]+", answer)
        named = [path for path in named if not path.endswith(".py")]
        for path in named:
            assert path in known or path.split(".args")[0] in known, answer
        elsewhere = (
            "--resume",
            "train.py",
            "test.py",
            "after each epoch",
        )  # no key, but what does it
        assert named or answer in known or any(one in answer for one in elsewhere), answer


def test_a_model_may_be_a_bare_name(sample):
    config = read_config(change(sample, "model", "vit"))
    assert (config.model.name, config.model.args) == ("vit", {})
    assert read_config(SAMPLE, ["model=vit"]).model == config.model


def test_a_config_is_also_taken_as_a_dict(sample):
    assert read_config(sample) == read_config(SAMPLE)
    assert "$schema" in sample  # it is left as it was
    with pytest.raises(UserError, match=r"^config: training.epochs: expected"):
        read_config(sample, ["training.epochs=0"])


def test_keywords_are_overrides_with_underscores_for_the_dots():
    values = {"training__epochs": 3, "seed": 1, "model__args": {"feat_dims": [1, 2, 3]}}
    config = read_config(SAMPLE, as_overrides(values))
    assert (config.training.epochs, config.seed) == (3, 1)
    assert config.model.args == {"feat_dims": [1, 2, 3]}
    values = {"training__epochs": np.int64(4), "training__save_dir": Path("else")}
    config = read_config(SAMPLE, as_overrides(values))
    assert (config.training.epochs, config.training.save_dir) == (4, "else")


def test_names_of_older_versions_are_understood(sample):
    group = {"loss": "cross_entropy", "optimizer": "sgd", "trains": ["stem"]}
    del sample["training"]["loss"], sample["training"]["optimizer"]
    sample["training"]["rules"] = {"a": group}
    sample["data_loader"]["device_resident"] = True
    config = read_config(sample)
    assert config.training.optimizer_groups["a"].params == ["stem"]
    assert config.data_loader.cache_on_device is True


def test_what_a_users_file_imports_can_be_named_if_it_is_the_users(tmp_path, monkeypatch):
    """Not what it takes from libraries, nor from the template's machinery."""
    files = {
        "model/__init__.py": "", "model/modules/__init__.py": "", "model/mine.py": "",
        "modules_of_mine.py": "", "training/__init__.py": "", "training/loss.py": "",
        "model/model.py": """
from jax.nn import relu
from model.modules import linear
from modules_of_mine import imported
from training.common.trees import split
from training.loss import shared
from .mine import beside

SIZE = 3
small = None

def defined(): ...

def _private(): ...
""",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = importlib.util.spec_from_file_location("model.model", tmp_path / "model/model.py")
    monkeypatch.setattr(utils, "ROOT", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    names = utils.public_names("model.model")
    assert sorted(names) == ["beside", "defined", "imported", "shared", "small"]


def test_outputs_beside_labels_stay_logits_in_a_run_of_an_older_version(tmp_path):
    """Whatever its loss: without `output`, and with one of its own."""
    values = json.loads((ROOT / "config.json").read_text())
    values["training"]["loss"] = "model.model:my_loss"
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    assert read_config(path).output is None
    (tmp_path / "metrics.jsonl").touch()
    assert read_config(path).output.name == "softmax"
    path.write_text(json.dumps(values | {"output": None}))
    assert read_config(path).output is None
