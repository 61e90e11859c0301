"""Which functions a config may name: the project's and optax's, and what its user allows."""

import json
import sys

import pytest

import train
import utils
from training.config import read_config
from training.engine.binding import construct

FOREIGN = [
    "os:system", "builtins:exec", "builtins:eval", "subprocess:run", "subprocess:Popen", "sys:exit",
    "shutil:rmtree", "importlib:import_module", "pickle:loads", "runpy:run_path", "pathlib:Path",
    "numpy:load", "jax:jit", "__main__:main", "os.path:join", "webbrowser:open",
]  # fmt: skip
MACHINERY = [
    "training.common.files:remove", "training.checkpoint.single_file:write",
    "utils:optional_module", "train:fit", "test:main", "new_project:main",
    "inference.convert_tflite:main",
]  # fmt: skip
PLACES = [  # of a name in the sample's config
    ("model", lambda name: name),
    ("data_loader.train.args.dataset", lambda name: {"name": name, "args": ["touch x"]}),
    ("training.optimizer.args.learning_rate", lambda name: {"name": name, "args": ["1"]}),
    ("training.metrics", lambda name: ["accuracy", name]),
    ("data_loader.preprocess", lambda name: name),
    ("training.trackers", lambda name: [{"name": name, "args": {"x": {"name": name}}}]),
    ("model.args.inner", lambda name: [{"deep": [{"name": name}]}]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "place", "shape"),
    [(name, *PLACES[0]) for name in FOREIGN] + [("os:system", *place) for place in PLACES[1:]],
)
def test_a_name_from_outside_of_the_project_is_refused_before_it_is_imported(name, place, shape):
    top, before = name.partition(":")[0].partition(".")[0], set(sys.modules)
    with pytest.raises(utils.UserError) as error:
        read_config(utils.ROOT / "config.json", [f"{place}={json.dumps(shape(name))}"])
    assert f'add "imports": ["{top}"] to it, or --allow {top}' in str(error.value)
    assert top in before or top not in sys.modules


@pytest.mark.parametrize("name", MACHINERY)
def test_the_templates_machinery_is_not_for_a_config_to_call(name):
    with pytest.raises(utils.UserError, match="a part of the template"):
        read_config(utils.ROOT / "config.json", [f"model={name}"])


def test_code_in_a_run_folder_is_not_the_projects(tmp_path, monkeypatch):
    path = tmp_path / "saved" / "title" / "theirs" / "code.py"
    path.parent.mkdir(parents=True)
    path.write_text("raise SystemExit('it ran')")
    monkeypatch.setattr(utils, "ROOT", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (fault,) = utils.check_name("saved.title.theirs.code:f", "model", (), "here")
    assert "not of this project" in fault


@pytest.mark.parametrize(
    "name", ["optax:adam", "optax.losses:l2_loss", "tests.helpers.networks:network"]
)
def test_the_projects_and_optaxs_functions_are_named_as_ever(name):
    assert utils.check_name(name, "model", (), "here") == []
    assert callable(utils.resolve(name, ()))


def test_a_package_is_allowed_by_the_config_or_by_the_command():
    name = 'model={"name": "numpy:clip"}'
    path = utils.ROOT / "config.json"
    assert read_config(path, [name, 'imports=["numpy"]']).imports == ["numpy"]
    assert read_config(path, [name], allow=["numpy"]).imports == ["numpy"]
    with pytest.raises(utils.UserError, match="not of this project"):
        read_config(path, [name], allow=["nump", "numpy.linalg"])
    assert read_config(path, ["model=numpy.linalg:norm"], allow=["numpy.linalg"])


DETOURS = """
import os
import os as helper
from subprocess import run
from functools import partial

class Data:
    tools = os

def mine(x):
    return x

small = partial(mine, 1)
chosen = os.getcwd  # by its author, not by a config
"""


@pytest.fixture
def my_code(tmp_path, monkeypatch):
    """A module of the project."""
    (tmp_path / "my_code.py").write_text(DETOURS)
    monkeypatch.setattr(utils, "ROOT", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_code", None)


@pytest.mark.parametrize(
    "attribute", ["os.system", "helper.system", "run", "Data.tools.system", "mine.__globals__.get",
                  "mine.__builtins__.clear", "Data.__subclasses__", "partial"],
)  # fmt: skip
def test_a_name_does_not_lead_through_a_module_to_another(my_code, attribute):
    value = {"name": f"my_code:{attribute}", "args": ["true"]}
    with pytest.raises(utils.UserError, match="leads to"):
        construct(value, "model", "here")


@pytest.mark.parametrize("attribute", ["mine", "small", "chosen", "Data"])
def test_what_a_module_defines_itself_can_be_named(my_code, attribute):
    assert utils.check_name(f"my_code:{attribute}", "model", (), "here") == []
    assert callable(utils.resolve(f"my_code:{attribute}", ()))


def test_a_config_of_someone_else_runs_nothing_not_even_on_check(tmp_path, write_config, config):
    data = {"name": "os:system", "args": [f"touch {tmp_path / 'ran'}"]}
    config["data_loader"]["train"]["args"]["dataset"] = data
    path = write_config(config)
    assert train.main(["-c", path, "--check"]) == 1
    assert train.main(["-c", path]) == 1
    assert not (tmp_path / "ran").exists()
