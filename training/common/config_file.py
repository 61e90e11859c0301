"""Reading a config's file: JSON, overrides from the command line, and messages of what is wrong.

The keys themselves are in training/config.py.
"""

import json
import re
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

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
        "patience early_stopping early_stopping_patience": "training.early_stop, in epochs",
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
        "metric": "training.metrics, a list",
        "batch_size bs train_batch_size": (
            "data_loader.train.args.batch_size, and data_loader.test.args.batch_size"
        ),
        "num_workers workers n_workers": "data_loader.train.args.workers",
        "shuffle": "data_loader.train.args.shuffle",
        "validation_split val_split val_size valid_split": (
            "data_loader.train.args.validation_split"
        ),
        "dataset data data_dir data_path data_root dataloader": (
            "data_loader.train.args.dataset, and data_loader.test.args.dataset"
        ),
        "transform transforms augmentation augmentations": (
            "data_loader.augment, in training only, and data_loader.preprocess"
        ),
        "device gpu gpus n_gpu num_gpus accelerator num_devices": (
            "devices.count; JAX takes the best device there is, and JAX_PLATFORMS=cpu another"
        ),
        "precision dtype amp mixed_precision fp16 bf16": "training.compute_dtype",
        "grad_clip gradient_clip gradient_clip_val clip_grad_norm max_grad_norm clip": (
            "training.clip_norm"
        ),
        "accumulate_grad_batches gradient_accumulation gradient_accumulation_steps "
        "grad_accum accumulation_steps": "training.accumulate",
        "ema_decay": "training.ema",
        "save_every save_freq save_interval save_steps checkpoint_every": (
            "training.save_period, in epochs"
        ),
        "save_top_k max_to_keep keep_last save_total_limit": "training.keep",
        "log_every log_every_n_steps log_freq log_step log_steps logging_steps": (
            "training.log_interval, in batches"
        ),
        "output_dir save_path log_dir checkpoint_dir out_dir": "training.save_dir",
        "resume resume_from resume_from_checkpoint": (
            "on the command line: python train.py --resume PATH"
        ),
        "pretrained weights init_from checkpoint_path load_from": "training.checkpoint",
        "mode monitor_mode": 'training.monitor, "min NAME" or "max NAME"',
        "use_wandb": "wandb.enabled",
        "wandb_project project": "wandb.project",
        "use_tensorboard": "training.tensorboard",
        "network net arch architecture model_name": "model",
        "name run_name experiment experiment_name": "title",
        "random_seed manual_seed": "seed",
    }.items()
    for name in names.split()
}
BACKSLASH_HINT = "Write a backslash twice, or a / in its place: C:/data"


def read_json(path):
    """Returns the object of a JSON file."""
    try:
        values = _parse(Path(path).read_text(encoding="utf-8"), path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot read the config: {reason}. Name it with -c") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8; expected a JSON config") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply for a config") from None
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}:{error.colno}"
        hint = BACKSLASH_HINT if "escape" in error.msg else JSON_HINT
        raise UserError(f"{place}: not valid JSON: {error.msg.lower()}. {hint}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected an object {{...}}, got {type(values).__name__}")
    return values


def _parse(text, where):
    """JSON, but for NaN and Infinity, which Python would take, and Windows paths it would spoil."""

    def refuse(constant):
        raise UserError(f"{where}: {constant} is no number to train with; expected a finite one")

    values = json.loads(text, parse_constant=refuse)
    for one in _texts(values):
        if re.match(r"[A-Za-z]:[\t\n\r\f\b]", one):
            raise UserError(f"{where}: {one!r} is no path. {BACKSLASH_HINT}")
    return values


def _texts(value):
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield value


def override_key(values, override):
    """Sets one key of nested dicts by "key.path=value"; a value is JSON, else a plain string."""
    keys, separator, text = override.partition("=")
    if not separator or not keys:
        raise UserError(f"{override!r}: expected key.path=value, like training.epochs=3")
    *parents, last = keys.split(".")
    for key in parents:
        values = _child(values, key, override)
        if not isinstance(values, dict | list):
            raise UserError(f"{override!r}: {key!r} is a plain value and has no keys below it")
    try:
        value = _parse(text, override)
    except (json.JSONDecodeError, RecursionError):
        value = text
    if isinstance(values, list):
        _child(values, last, override)
        values[int(last)] = value
    else:
        values[last] = value


def _child(values, key, override):
    if isinstance(values, dict):
        if not isinstance(values.get(key), dict | list):
            values[key] = {"name": values[key]} if isinstance(values.get(key), str) else {}
        return values[key]
    if not key.isdigit() or int(key) >= len(values):
        raise UserError(f"{override!r}: expected an index below {len(values)}, got {key!r}")
    return values[int(key)]


def describe(fault, path, config):
    """Returns one line for one of pydantic's faults: where, what was got, what was expected.

    `fault` is of `ValidationError.errors()`, `config` the class of the whole config.
    """
    *parents, last = fault["loc"] or ("",)
    location = [str(part) for part in parents if "[" not in str(part)]  # no "dict[str,any]"
    if fault["type"] == "extra_forbidden":
        location.append(str(last) or '""')
    elif last and "[" not in str(last):
        location.append(str(last))
    where, got = ".".join(location), _shorten(fault["input"])
    if fault["type"] == "extra_forbidden":
        return f"{path}: {where}: unknown key{_hint(location, config)}"
    if fault["type"] == "missing":
        return f"{path}: {where}: missing"
    expected = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected = expected.removeprefix("expected ").removeprefix("a valid ")
    if instance := re.search(r"dictionary or instance of (\w+)", expected):
        fields = next(one for one in _all_sections(config) if one.__name__ == instance[1])
        shape = ", ".join(f'"{field}": ...' for field in fields.model_fields)
        expected = expected.replace(instance[0], f"an object {{{shape}}}")
    place = f"{path}: {where}" if where else f"{path}"
    if fault["type"] == "value_error":
        return f"{place}: expected {expected}"
    return f"{place}: expected {expected}, got {got}"


def _hint(location, config):
    """What to write in place of an unknown key: what does this here, or the nearest key."""
    usual = USUAL_KEYS.get(location[-1].lower().replace("-", "_"))
    if usual and usual.partition(",")[0] != ".".join(location):
        return f"; here that is {usual}"
    other = [path for path in _paths(config) if f".{path}".endswith(f".{location[-1]}")]
    if other:
        return f"; here that is {other[0]}"
    known = _section(location[:-1], config).model_fields
    if known.keys() == {"name", "args"} and not nearest(location[-1], known):
        return f"; arguments are in {'.'.join(location[:-1])}.args"
    return nearest(location[-1], known)


def _section(location, config):
    """The class of the section at a path like ["data_loader", "train"]."""
    section = config
    for key in location:
        field = section.model_fields.get(key)
        inner = _sections(field.annotation) if field else []
        section = inner[0] if inner else section
    return section


def _paths(section, start=""):
    """Yields the path of every key of a section and of those within it, the outer ones first."""
    for key, field in section.model_fields.items():
        yield f"{start}{key}"
        inner = _sections(field.annotation)
        if len(inner) == 1 and "name" not in inner[0].model_fields:  # no dicts of sections
            yield from _paths(inner[0], f"{start}{key}.")


def _all_sections(section):
    """Yields the class of a section and those of all sections within it."""
    yield section
    for field in section.model_fields.values():
        for inner in _sections(field.annotation):
            yield from _all_sections(inner)


def _sections(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections(part)]


def _shorten(value, length=60):
    text = json.dumps(value, default=str)
    return text if len(text) <= length else text[: length - 3] + "..."
