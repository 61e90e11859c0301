"""Batch transforms in whole updates and runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from tests.helpers.project import BATCH_SIZE
from training.engine.initialize import first_batch
from utils import UserError


def named(*functions):
    return [f"{__name__}:{one.__name__}" for one in functions]


@pytest.mark.parametrize("settings", [{"accumulate": 2}, {"seeds": 2}, {"steps_per_call": 2}])
def test_mixing_works_with_whatever_surrounds_the_update(build_with, settings):
    experiment = build_with(["random_flip", "mixup"], **settings)
    call, _ = next(experiment.batches(epoch=1))
    _, measured = experiment.update(experiment.init(first_batch(experiment)), call)
    total, weight = jax.tree.map(np.sum, measured["loss"])
    assert np.isfinite(total)
    assert weight % BATCH_SIZE == 0


def not_a_number(batch, *, key):
    return batch | {"inputs": batch["inputs"] / jnp.zeros(())}


def no_weight(batch, *, key):
    return batch | {"weight": batch["weight"] * jnp.nan}


@pytest.mark.parametrize("function", [not_a_number, no_weight])
def test_numbers_that_are_not_finite_are_blamed_on_the_transform_at_the_first_update(
    config, write_config, function
):
    config["data_loader"]["augment"] = ["random_flip", *named(function)]
    with pytest.raises(UserError, match=rf"batch 0 .*data_loader.augment.1: .*{function.__name__}"):
        train.fit(write_config(config))


def two_views(x, *, key):
    """As for contrastive learning."""
    return {"one": x, "two": x[..., ::-1]}


def of_views(x, *, params=None, key=None, train=False):
    from model.model import mnist_model

    both = isinstance(x, dict)
    one = x["one"] if both else x
    return mnist_model(one / 255, params=params, key=key, train=train)


def test_an_augmentation_that_returns_a_dict_leaves_a_report(config, write_config, caplog):
    config["data_loader"] |= {"augment": named(two_views), "preprocess": None}
    config["model"] = f"{__name__}:of_views"
    config["training"]["epochs"] = 1
    run = train.fit(write_config(config))
    assert "augmented" in (run.folder / "report.html").read_text()


def only_inputs(batch, *, key):
    return batch["inputs"]


def test_a_check_names_what_is_no_transform(config, write_config, capsys):
    config["data_loader"]["augment"] = named(only_inputs)
    assert train.main(["-c", str(write_config(config)), "--check"]) == 1
    assert "only_inputs returned uint8" in capsys.readouterr().err
