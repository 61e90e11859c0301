"""The JSON Schema of a config: what editors complete and underline."""

import copy
import inspect
import json
import re
from pathlib import Path

import jsonschema
import pytest

from tests.helpers.project import ROOT
from training import schema
from training.config import HOMES, read_config
from utils import UserError, check_arguments

CONFIGS = [ROOT / "config.json", *sorted(ROOT.glob("examples/*/*.json"))]


@pytest.fixture(scope="module")
def validator():
    written = json.loads(schema.PATH.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(written)
    return jsonschema.Draft202012Validator(written)


@pytest.fixture
def sample():
    return json.loads((ROOT / "config.json").read_text())


def faults(validator, values):
    """The paths of what an editor would underline."""
    paths = []
    for error in validator.iter_errors(values):
        deepest = jsonschema.exceptions.best_match([error])
        paths.append(".".join(map(str, deepest.absolute_path)))
    return paths


def changed(values, path, value):
    values = copy.deepcopy(values)
    *parents, last = path.split(".")
    inner = values
    for key in parents:
        inner = inner[int(key) if isinstance(inner, list) else key]
    inner[last] = value
    return values


def test_the_file_is_current():
    """If not: python -m training.schema."""
    assert schema.PATH.read_text(encoding="utf-8") == schema.text()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_here_names_the_schema_and_conforms_to_it(path, validator):
    values = json.loads(path.read_text())
    assert (path.parent / values["$schema"]).resolve() == schema.PATH
    assert faults(validator, values) == []


def test_a_config_as_a_run_writes_it_conforms_to_the_schema(sample, validator, write_config):
    from training.config import write_config as write

    path = Path(write_config(sample))
    write(read_config(path), path)
    written = json.loads(path.read_text())
    assert "$schema" not in written
    assert faults(validator, written) == []


MISTAKES = [
    ("title", "a/b"),
    ("sed", 1),
    ("training.epochs", 0),
    ("training.epoch", 3),
    ("training.compute_dtype", "float8"),
    ("training.loss", "cross_entropi"),
    ("training.metrics", ["acuracy"]),
    ("training.metrics", "accuracy"),
    ("training.optimizer", {"name": "adamv", "args": {"learning_rate": 0.1}}),
    ("training.optimizer.args", {"learning_rate": 0.1, "beta1": 0.9}),
    ("training.optimizer.args", {"b1": 0.9}),
    ("training.optimizer.args.learning_rate", {"name": "warmup_cosin", "args": {}}),
    ("training.optimizer.args.learning_rate.args", {"peek": 0.1, "total_steps": 1}),
    ("model", {"name": "mnist_modl"}),
    ("model.args", {"feat_dim": [8]}),
    ("model.args", {"params": {}}),
    ("data_loader.augment.args", {"pixels": 1, "key": 0}),
    ("data_loader.train.args.batchsize", 3),
    ("data_loader.train.args.dataset.name", "IdxImage"),
    ("data_loader.train.args.dataset.args.rot", "data"),
]


@pytest.mark.parametrize(("path", "value"), MISTAKES)
def test_what_the_config_reader_or_the_build_refuses_is_underlined(
    sample, validator, write_config, path, value
):
    from training.engine.build import build

    values = changed(sample, path, value)
    with pytest.raises(UserError):
        build(read_config(write_config(values)))
    assert faults(validator, values)


ALLOWED = [
    ("model", {"name": "package.module:function", "args": {"anything": 1}}),
    ("training.optimizer.args.learning_rate", 0.1),
    ("training.loss", {"name": "cross_entropy", "args": {"label_smoothing": 0.1}}),
    ("training.checkpoint", "saved/x"),
    ("training.checkpoint", {"path": "saved/x", "partial": ["stem"]}),
    ("data_loader.augment", None),
    ("data_loader.preprocess", "package.module:function"),
    ("training.optimizer", {"name": "lion", "args": {"learning_rate": {"name": "linear_schedule",
        "args": {"init_value": 1, "end_value": 0, "transition_steps": "total_steps"}}}}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), ALLOWED)
def test_what_the_config_reader_accepts_is_not_underlined(
    sample, validator, write_config, path, value
):
    values = changed(sample, path, value)
    read_config(write_config(values))
    assert faults(validator, values) == []


@pytest.mark.parametrize("kind", HOMES)
def test_the_arguments_of_each_name_are_those_it_takes(kind):
    """`utils.check_arguments`, which the build uses, is the judge."""
    functions = schema.offered(kind)
    assert functions
    given = schema.GIVEN[kind]
    for name, function in functions.items():
        shown = schema.arguments(function, given)
        if not shown:
            continue
        required = dict.fromkeys(shown.get("required", []))
        taken = [*list(inspect.signature(function).parameters)[: given[0]], *given[1]]
        check_arguments(function, required, name, taken)
        check_arguments(function, dict.fromkeys(shown["properties"]), name, taken)
        if shown.get("additionalProperties") is False:
            with pytest.raises(UserError, match="takes no argument 'nonsense'"):
                check_arguments(function, required | {"nonsense": 1}, name, taken)


def test_an_editor_shows_what_a_key_and_an_argument_are_for(validator):
    definitions = validator.schema["$defs"]
    ema = definitions["Training"]["properties"]["ema"]
    assert ema["description"] == "decay of the weights' moving average, per update"
    cases = {
        case["if"]["properties"]["name"]["const"]: case["then"]["properties"]
        for case in definitions["transform call"]["allOf"]
    }
    shift = cases["random_shift"]
    assert shift["name"]["description"].startswith("Shifts every image by its own random")
    pixels = shift["args"]["properties"]["pixels"]["description"]
    assert pixels == "largest shift, up or down and left or right; 0 for none."


def test_a_config_can_name_what_one_would_name_in_one_and_nothing_else():
    names = {kind: set(schema.offered(kind)) for kind in HOMES}
    assert names["model"] == {
        "convnext_block", "downsample", "mlp", "mnist_model", "transformer_block", "vit"
    }  # fmt: skip
    assert names["metric"] == {
        "accuracy", "binary_accuracy", "confusion_matrix", "macro_f1", "one_hot_accuracy",
        "top_k_accuracy",
        "auroc", "average_precision", "binary_dice", "binary_iou", "dice", "f1", "iou",
        "expected_calibration_error", "multilabel_f1", "pearson", "perplexity", "r2", "spearman",
    }  # fmt: skip
    assert names["data_loader"] == {
        "Arrays", "DataLoader", "HuggingFace", "HuggingFaceStream", "IdxImages", "ImageFolder",
        "Table", "TarShards", "Tokens",
    }  # fmt: skip
    assert names["sampler"] == {"balanced"}
    assert names["transform"] == {
        "color_jitter", "cutmix", "cutout", "mixup", "normalize", "rand_augment", "random_affine",
        "random_crop", "random_erasing", "random_flip", "random_resized_crop", "random_rotation",
        "random_shift",
    }  # fmt: skip
    assert {"cross_entropy", "huber_loss"} <= names["loss"]
    assert {"sgd", "adamw", "matrices", "warmup_cosine", "lion", "chain"} <= names["optimizer"]
    assert not names["loss"] & names["optimizer"]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("training.optimizer", "update"),
        ("training.optimizer", "gradients"),
        ("training.optimizer", "split"),  # imported from training/common
        ("training.optimizer", "apply_updates"),  # of optax, and no optimizer
        ("training.optimizer", "global_norm"),
        ("training.loss", "adam"),
        ("training.loss", "make_update"),
        ("training.metrics", ["aggregated"]),
        ("model.name", "Layers"),
        ("model.name", "relu"),
        ("model.name", "SMALL"),
        ("data_loader.train.name", "BaseDataLoader"),
    ],
)
def test_machinery_is_no_name_for_a_config(sample, key, name):
    with pytest.raises(UserError, match=r"no (model|data_loader|loss|metric|optimizer) '"):
        read_config(changed(sample, key, name))


def test_every_reference_leads_to_a_definition():
    content = schema.text()
    named = {*re.findall(r'"\$ref": "#/\$defs/([^"]+)"', content)}
    assert named
    assert named <= json.loads(content)["$defs"].keys()
