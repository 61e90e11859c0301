"""Each example trains and is evaluated by `--check`, which leaves no files."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

import train
from examples.records.small_cnn import small_cnn
from tests.helpers.examples import (
    EXAMPLES,
    detection_config,
    folds_config,
    gan_config,
    library_config,
    mixup_config,
    multi_label_config,
    on_digits,
    segmentation_config,
    tabular_config,
    text_config,
)
from tests.helpers.project import by_set
from training.common.trees import split


def write_gospel(folder):
    """Writes the beginning of the text of examples/text."""
    path = folder / "text.txt"
    path.write_text((EXAMPLES / "text" / "gospels.txt").read_text(encoding="utf-8")[:3000])
    return path


CONFIGS = {
    "gan/config": lambda mnist, folder: gan_config(mnist, folder / "saved"),
    "multi_label/config": lambda mnist, folder: multi_label_config(folder / "saved"),
    "folds/config": lambda mnist, folder: folds_config(folder / "saved"),
    "segmentation/config": lambda mnist, folder: segmentation_config(folder / "saved"),
    "detection/config": lambda mnist, folder: detection_config(mnist, folder / "saved"),
    "mixup/config": lambda mnist, folder: mixup_config(mnist, folder / "saved"),
    "records/config": lambda mnist, folder: on_digits(
        "records/config.json", mnist, folder / "saved"
    ),
    "tabular/config": lambda mnist, folder: tabular_config(folder / "saved"),
    "text/config": lambda mnist, folder: text_config(write_gospel(folder), folder / "saved"),
    "libraries/optax_chain": lambda mnist, folder: (
        library_config("optax_chain", mnist, folder / "saved")
        | {"model": {"name": "mlp", "args": {"feat_dims": [16]}}}
    ),
} | {
    f"libraries/{library}_cnn": lambda mnist, folder, library=library: library_config(
        f"{library}_cnn", mnist, folder / "saved"
    )
    for library in ("equinox", "haiku", "linen", "nnx")
}


# Compiling the others' networks takes seconds: the fast set has a library's optimizer instead.
FEW = ("libraries/optax_chain",)


# By a whole test each, in full/, and the starter's in test_new_project.py.
TRIED_ELSEWHERE = {
    "contrastive/config", "distill/config", "finetune/config", "finetune/imagenet",
    "finetune/pretrain", "starter/config", "text/tokens", "vae/config",
}  # fmt: skip


@pytest.mark.parametrize("example", by_set(FEW, CONFIGS))
def test_an_example_makes_a_step_and_is_evaluated(
    example, mnist, write_config, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(EXAMPLES.parent)
    path = write_config(CONFIGS[example](mnist, tmp_path))
    assert train.main(["-c", path, "--check"]) == 0
    assert "All is well." in capsys.readouterr().out
    assert not (tmp_path / "saved").exists()


def test_every_config_of_the_examples_is_tried():
    found = {str(path.relative_to(EXAMPLES).with_suffix("")) for path in EXAMPLES.rglob("*.json")}
    assert found - TRIED_ELSEWHERE == set(CONFIGS)


def test_the_network_of_the_record_has_fewer_than_14000_parameters():
    image = jax.ShapeDtypeStruct((1, 1, 28, 28), jnp.float32)
    _, params = jax.eval_shape(partial(small_cnn, key=jax.random.key(0)), image)
    trained, _ = split(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(trained)) == 13_926
