"""Reading a config's file: JSON, overrides from the command line, and messages of what is wrong.

The keys themselves are in training/config.py.
"""

import json
import re
from types import NoneType
from typing import get_args, get_origin

from pydantic import BaseModel

from training.common.json_text import (
    BACKSLASH_HINT,
    DEEPEST,
    LARGEST,
    check_values,
    parse_json,
    parse_value,
    shorten,
)
from utils import UserError, nearest

JSON_HINT = (
    "JSON has double quotes around every text and key, true, false and null, no comments, and no "
    "comma behind the last"
)
# What does here what other projects have under these names.
USUAL_KEYS = {
    name: key
    for names, key in {
        "max_epochs max_epoch num_epochs n_epochs num_train_epochs": "training.epochs",
        "max_steps num_steps total_steps train_steps max_iter iterations steps": (
            "training.max_steps, in updates"
        ),
        "eval_every eval_interval eval_steps eval_freq eval_strategy evaluate_every val_every "
        "val_interval val_check_interval check_val_every_n_epoch validation_freq": (
            'training.evaluate_every, "1 epoch", "500 steps" or "10 minutes"'
        ),
        "freeze frozen freeze_layers frozen_layers trainable": (
            "training.freeze, paths of the parts that stay as they are: docs/fine_tuning.md"
        ),
        "callbacks callback hooks": "training.callbacks, a list of functions f(run)",
        "patience early_stopping early_stopping_patience": "training.early_stop, in evaluations",
        "lr learning_rate base_lr": "training.optimizer.args.learning_rate",
        "scheduler lr_scheduler schedule lr_schedule": (
            "training.optimizer.args.learning_rate, as "
            '{"name": "warmup_cosine", "args": {"peak": 0.01, "total_steps": "total_steps"}}'
        ),
        "warmup warmup_steps warmup_epochs": (
            "an argument of the schedule in training.optimizer.args.learning_rate"
        ),
        "weight_decay momentum betas": "an argument in training.optimizer.args",
        "optim optimiser": "training.optimizer",
        "criterion loss_fn loss_function": "training.loss",
        "label_smoothing": "training.loss.args.label_smoothing",
        "num_classes n_classes": "model.args.classes, of the networks in model/model.py",
        "metric": "training.metrics, a list",
        "batch_size bs train_batch_size": (
            "data_loader.train.args.batch_size, and data_loader.test.args.batch_size"
        ),
        "num_workers workers n_workers": "data_loader.train.args.workers",
        "shuffle": "data_loader.train.args.shuffle",
        "class_weight pos_weight": "training.class_weights",
        "sampler weighted_sampler": "data_loader.train.args.sampler",
        "drop_last": "data_loader.train.args.drop_last",
        "validation validation_split val val_split val_size valid valid_split": (
            "data_loader.train.args.validation_split"
        ),
        "dataset data data_dir data_path data_root dataloader": (
            "data_loader.train.args.dataset, and data_loader.test.args.dataset"
        ),
        "transform transforms augmentation augmentations": (
            "data_loader.augment, in training only, and data_loader.preprocess"
        ),
        "mixup cutmix mixup_alpha cutmix_alpha cutout random_erasing randaugment": (
            'an entry of the list data_loader.augment, as in ["random_flip", "mixup"]'
        ),
        "tta test_time_augmentation": ("on the command line: python test.py --tta horizontal_flip"),
        "device gpu gpus n_gpu num_gpus accelerator num_devices": (
            "devices.count; JAX takes the best device there is, and JAX_PLATFORMS=cpu another"
        ),
        "precision dtype amp mixed_precision fp16 bf16 loss_scale grad_scaler": (
            'training.compute_dtype, "float32" or "bfloat16"'
        ),
        "grad_clip gradient_clip gradient_clip_val clip_grad_norm max_grad_norm clip": (
            "training.clip_norm"
        ),
        "accumulate_grad_batches gradient_accumulation gradient_accumulation_steps "
        "grad_accum accumulation_steps": "training.accumulate",
        "ema_decay": "training.ema",
        "save_every save_period save_freq save_interval save_steps checkpoint_every": (
            'training.save_every, "2 epochs", "500 steps" or "10 minutes"'
        ),
        "save_top_k max_to_keep keep_last save_total_limit": "training.keep",
        "log_every log_interval log_every_n_steps log_freq log_step log_steps logging_steps": (
            'training.log_every, "22 steps" or "1 minute"'
        ),
        "output_dir save_path log_dir checkpoint_dir out_dir": "training.save_dir",
        "resume resume_from resume_from_checkpoint": (
            "on the command line: python train.py --resume PATH"
        ),
        "pretrained weights init_from checkpoint_path load_from": "training.checkpoint",
        "mode monitor_mode save_best save_best_only metric_for_best_model": (
            'training.monitor, "min NAME" or "max NAME"'
        ),
        "use_wandb": "wandb.enabled",
        "wandb_project project": "wandb.project",
        "use_tensorboard": "training.tensorboard",
        "network net arch architecture model_name": "model",
        "name run_name experiment experiment_name": "title",
        "random_seed manual_seed": "seed",
    }.items()
    for name in names.split()
}


def read_json(path):
    """Returns the object of a JSON file."""
    text = _text_of(path)
    try:
        values = parse_json(text, path)
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}:{error.colno}"
        hint = BACKSLASH_HINT if "escape" in error.msg else JSON_HINT
        raise UserError(f"{place}: not valid JSON: {error.msg.lower()}. {hint}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected an object {{...}}, got {type(values).__name__}")
    return values


def _text_of(path):
    try:
        with open(path, "rb") as file:
            data = file.read(4 * LARGEST + 4)  # bytes; parse_json counts the characters
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot read the config: {reason}. Name it with -c") from None
    fix = "expected a JSON config; save it as UTF-8 in your editor"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path}: not a text file in UTF-8, but in UTF-16; {fix}")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise UserError(f"{path}: not a text file in UTF-8: line {line} has NUL bytes; {fix}")
    try:
        return data.decode("utf-8-sig")  # editors on Windows write a byte order mark
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: not a text file in UTF-8: see line {line}; {fix}") from None


def override_key(values, override, config):
    """Sets one key of nested dicts by "key.path=value"; see `parse_value` for the value.

    `config` is the class of the whole config: where it expects a text, the value is one.
    """
    path, separator, text = override.partition("=")
    shown = shorten(override)
    if not separator or not path:
        raise UserError(f"{shown!r}: expected key.path=value, like training.epochs=3")
    keys = path.split(".")
    if len(keys) > DEEPEST:
        raise UserError(f"{shown!r}: expected a key of at most {DEEPEST} parts, got {len(keys)}")
    *parents, last = keys
    for key in parents:
        values = _child(values, key, shown)
        if not isinstance(values, dict | list):
            raise UserError(f"{shown!r}: {key!r} is a plain value and has no keys below it")
    value = _value(text, override, _field(keys, config))
    check_values(value, override)
    if isinstance(values, list):
        _child(values, last, shown)
        values[int(last)] = value
    else:
        values[last] = value


def _value(text, override, annotation):
    """The value of an override: of a key that holds a text, the text, were it a number's."""
    types = (annotation,) if get_origin(annotation) in (list, dict) else get_args(annotation)
    if annotation is not str and str not in types:
        return parse_value(text, override)
    if text.lower() in ("none", "null") and NoneType in types:
        return None
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return parse_value(text, override) if quoted else text


def _field(keys, config):
    """The type of the value that a config has at a path, None where it can be anything."""
    section = _section(keys[:-1], config)
    known = _paths(config)
    field = _fields(section).get(keys[-1]) if ".".join(keys) in known else None
    return field and field.annotation


def _child(values, key, override):
    if isinstance(values, dict):
        if not isinstance(values.get(key), dict | list):
            short = "path" if key == "checkpoint" else "name"  # what a text stands for
            values[key] = {short: values[key]} if isinstance(values.get(key), str) else {}
        return values[key]
    if not re.fullmatch("[0-9]{1,9}", key) or int(key) >= len(values):
        raise UserError(
            f"{override!r}: expected an index below {len(values)}, got {shorten(key)!r}"
        )
    return values[int(key)]


def describe(fault, path, config):
    """Returns one line for one of pydantic's faults: where, what was got, what was expected.

    `fault` is of `ValidationError.errors()`, `config` the class of the whole config.
    """
    *parents, last = fault["loc"] or ("",)
    location = [str(part) for part in parents if "[" not in str(part)]  # no "dict[str,any]"
    if fault["type"] == "extra_forbidden":
        location.append(shorten(last) or '""')
    elif last and "[" not in str(last):
        location.append(str(last))
    where, got = ".".join(location), _shorten(fault["input"])
    if fault["type"] == "extra_forbidden":
        return f"{path}: {where}: unknown key{_hint(location, config)}"
    if fault["type"] == "missing":
        return f"{path}: {where}: missing"
    if fault["type"] == "string_pattern_mismatch":
        return (
            f"{path}: {where}: expected letters, digits and any of _ . + - or a space, a letter, a "
            f"digit or _ first, got {got}"
        )
    expected = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected = expected.removeprefix("expected ").removeprefix("a valid ")
    if instance := re.search(r"dictionary or instance of (\w+)", expected):
        fields = next(one for one in _all_sections(config) if one.__name__ == instance[1])
        shape = ", ".join(f'"{field}": ...' for field in _fields(fields))
        expected = expected.replace(instance[0], f"an object {{{shape}}}")
    place = f"{path}: {where}" if where else f"{path}"
    if fault["type"] == "value_error":
        return f"{place}: expected {expected}"
    return f"{place}: expected {expected}, got {got}{_unquoted(fault)}"


def _unquoted(fault):
    """What to write in place of a number or a constant in quotes."""
    text = fault["input"]
    if not isinstance(text, str) or fault["type"] == "string_type":
        return ""
    try:
        value = parse_value(text, "")
    except UserError:
        return ""
    plain = isinstance(value, bool | int | float | NoneType)
    return f"; write {json.dumps(value)}, without quotes" if plain else ""


def _hint(location, config):
    """What to write in place of an unknown key: what does this here, or the nearest key."""
    usual = USUAL_KEYS.get(location[-1].lower().replace("-", "_"))
    if usual and usual.partition(",")[0] != ".".join(location):
        return f"; here that is {usual}"
    other = [path for path in _paths(config) if f".{path}".endswith(f".{location[-1]}")]
    if other:
        return f"; here that is {other[0]}"
    known = _fields(_section(location[:-1], config))
    if known.keys() == {"name", "args"} and not nearest(location[-1], known):
        return f"; arguments are in {'.'.join(location[:-1])}.args"
    return nearest(location[-1], known)


def _section(location, config):
    """The class of the section at a path like ["data_loader", "train"]."""
    section = config
    for key in location:
        field = _fields(section).get(key)
        inner = _sections(field.annotation) if field else []
        section = inner[0] if inner else section
    return section


def _paths(section, start=""):
    """Yields the path of every key of a section and of those within it, the outer ones first."""
    for key, field in _fields(section).items():
        yield f"{start}{key}"
        inner = _sections(field.annotation)
        if len(inner) == 1 and "name" not in _fields(inner[0]):  # no dicts of sections
            yield from _paths(inner[0], f"{start}{key}.")


def _all_sections(section):
    """Yields the class of a section and those of all sections within it."""
    yield section
    for field in _fields(section).values():
        for inner in _sections(field.annotation):
            yield from _all_sections(inner)


def _fields(section):
    """{key: field} of a section, by their names in the file: "except" is no name in Python."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _sections(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections(part)]


def _shorten(value, length=60):
    text = json.dumps(value, default=str)
    return text if len(text) <= length else text[: length - 3] + "..."
