"""Variables of a config: "$name" anywhere in it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.project import examples
from training.common.variables import escape, substitute
from training.config import read_config, write_config
from utils import UserError


def read(config, write_config, *overrides):
    return read_config(write_config(config), overrides)


def test_a_variable_stands_anywhere_and_keeps_its_type(config, write_config):
    config["training"]["epochs"] = "$n"
    config["training"]["save_dir"] = "saved/part-${n}"
    config["model"]["args"]["feat_dims"] = ["$n", 4]
    config["variables"] = {"n": 3}
    found = read(config, write_config)
    assert (found.training.epochs, found.training.save_dir) == (3, "saved/part-3")
    assert found.model.args["feat_dims"] == [3, 4]
    other = read(config, write_config, "n=5")
    assert (other.training.epochs, other.variables) == (5, {"n": 5})
    config["model"]["args"]["feat_dims"] = "$dims"
    assert read(config, write_config, "dims=[7]").model.args["feat_dims"] == [7]


def test_a_variable_that_is_not_given_is_named_with_its_place(config, write_config):
    config["data_loader"]["train"]["args"]["fold"] = "$fold"
    words = r'data_loader.train.args.fold: "\$fold" is not given; .* fold=0, .*"variables": {"fold"'
    with pytest.raises(UserError, match=words):
        read(config, write_config)
    config["variables"] = {"folds": 0}
    with pytest.raises(UserError, match="did you mean 'folds'"):
        read(config, write_config)
    config["variables"] = 3
    with pytest.raises(UserError, match="variables: expected"):
        read(config, write_config)


def test_a_value_for_a_variable_that_nothing_says_is_refused(config, write_config):
    config["variables"] = {"fold": 0}
    with pytest.raises(UserError, match="fold: unknown key"):
        read(config, write_config, "fold=1")


@pytest.mark.parametrize(
    ("written", "text"),
    [("$$x", "$x"), ("$$$x", "$$x"), ("a $x", "a $x"), ("$5", "$5"), ("$", "$"), ("$$", "$$"),
     ("$${x}", "${x}"), ("a$${x}$x", "a${x}$x"), ("cash$money$", "cash$money$")],
)  # fmt: skip
def test_other_dollars_are_literal_and_a_run_reads_back_what_it_wrote(
    config, write_config, tmp_path, written, text
):
    config["model"]["args"]["note"] = written
    found = read(config, write_config)
    assert found.model.args["note"] == text
    write_config_of_run(found, tmp_path)
    assert read_config(tmp_path / "again.json") == found


def write_config_of_run(found, folder):
    write_config(found, folder / "again.json")


@examples(300)
@given(st.recursive(st.text("$x{}a1", max_size=8), st.lists, max_leaves=4))
def test_whatever_is_written_is_read_back(value):
    values = {"variables": {"x": 1}, "a": value}
    again = json.loads(json.dumps(escape(values)))
    substitute(again, "config.json")
    assert again == values


def test_a_run_of_a_version_without_variables_keeps_its_texts(config, write_config, tmp_path):
    config["model"]["args"]["note"] = "$x"
    path = write_config(config)
    with open(path.replace("config.json", "metrics.jsonl"), "w"):
        pass
    assert read_config(path).model.args["note"] == "$x"
