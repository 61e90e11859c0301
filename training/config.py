"""What config.json may hold. Read and checked as a whole before JAX is imported.

Each class below is one section of the file; the comment beside a key is its documentation.
"""

import copy
import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    model_validator,
)

from training.common.config_file import describe, override_key, read_json
from training.common.every import FORM, parse_every
from training.common.files import atomic_write_text
from training.common.json_text import check_values
from training.common.old_config import keep_old_behaviour, rename_old_keys, with_current_key
from training.common.variables import as_variable, escape, substitute
from utils import UserError, check_name

# Where a bare name is looked up: first in its home, then in the library that serves it, in those of
# its modules that define such things.
OPTIMIZERS = "alias,base,contrib,factorized,lookahead,linesearch,schedules,transform,transforms"
HOMES = {  # homes that are not there are left out
    "model": ("model.model",),
    "data_loader": (
        "data_loader.dataloader",
        "data_loader.sources.tables",
        "data_loader.sources.arrays",
        "data_loader.sources.shards",
        "data_loader.sources.tokens",
        "data_loader.sources.hugging_face",
    ),
    "sampler": ("data_loader.samplers",),
    "transform": (
        "data_loader.transforms",
        "data_loader.augment.geometric",
        "data_loader.augment.colour",
        "data_loader.augment.mixing",
    ),
    "loss": ("training.loss", "optax:losses"),
    "metric": ("training.metrics", "training.library.metrics"),
    "callback": ("training.callbacks",),
    "optimizer": ("training.optimizers", f"optax:{OPTIMIZERS}"),
    "tracker": ("training.tracking.backends",),
    "output": ("training.common.outputs",),
    "report": ("training.report.pages",),
}
OUTPUT_KINDS = ("softmax", "sigmoid", "none")
ORBAX = "orbax-checkpoint==0.12.8"  # what devices.orbax needs
NAME = r"^\w[\w .+-]*$"  # of a folder: nothing that leads out of the one it is in
LISTED = 20  # faults that a message lists


class Section(BaseModel):
    """A section of the config. Unknown keys are refused; it cannot be changed once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, serialize_by_alias=True)


class Named(Section):
    """A function by name, with its arguments: {"name": ..., "args": {...}}, or only the name."""

    name: str
    args: dict[str, Any] | list[Any] = {}


def _whole(value):
    """A whole number written as 10.0 or 1e1 is one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]  # in this order for the schema


def _or_string(key, schema):
    """Validates a section that a string may stand for, as the value of its `key`."""

    def from_string(value):
        return {key: value} if isinstance(value, str) else value

    return BeforeValidator(from_string, json_schema_input_type=schema)


def _listed(value):
    """A single one, or none, as a list."""
    return value if isinstance(value, list) else [] if value is None else [value]


NamedOrName = Annotated[Named, _or_string("name", Named | str)]


def _often(alone=None):
    """A text such as "500 steps"; where a number may stand alone, `alone` is its unit."""
    form = Annotated[str, Field(pattern=f"^{FORM.pattern}$")]
    kinds = form | Annotated[int, Field(ge=1)] if alone else form

    def checked(value):
        return str(parse_every(value, alone))

    return BeforeValidator(checked, json_schema_input_type=kinds)


Often = Annotated[str, _often()]


class Callback(Named):
    """A function of the run by name, with its arguments, and how often it is called."""

    every: Often = "1 epoch"


CallbackOrName = Annotated[Callback, _or_string("name", Callback | str)]


class DataLoaders(Section):
    """Where examples come from, and what happens to them on the device."""

    train: Named
    validation: Named | None = None  # data of its own, in place of a validation_split of `train`
    test: Named
    preprocess: NamedOrName | None = None  # f(inputs) -> inputs, before every call of the network
    # In training only, before `preprocess`, one after the other: f(batch, key=key) -> batch, or
    # f(inputs, key=key) -> inputs.
    augment: Annotated[list[NamedOrName], BeforeValidator(_listed)] = []
    # Keep the examples on the device; "auto": on an accelerator, if in memory and they fit. What
    # a data set generates at every reading is then generated once.
    cache_on_device: Literal["auto", True, False] = "auto"
    # A `validation_split` holds out the same share of every class, where the data set has `labels`.
    stratify: bool = True

    def transforms(self) -> list[tuple[str, Named]]:
        """The functions of `augment`, each with its key: "augment", or "augment.0" of several."""
        single = len(self.augment) == 1
        return [("augment" if single else f"augment.{index}", one)
                for index, one in enumerate(self.augment)]  # fmt: skip

    @field_serializer("augment")
    def _as_written(self, transforms: list[Named]) -> Any:
        """A single transform stands without brackets, and none as null, as older versions write."""
        plain = [one.model_dump() for one in transforms]
        return plain if len(plain) > 1 else plain[0] if plain else None


class OptimizerGroup(Section):
    """Which loss trains which parameters with which optimizer."""

    loss: NamedOrName
    optimizer: NamedOrName
    params: list[str] = []  # paths of the parameters it trains ("generator"); empty: all


class Pretrained(Section):
    """A checkpoint to take parameters from."""

    path: str  # of a checkpoint, a run folder, a safetensors file, or an index of such files
    # Paths to take ("stem"); true: all that fits; null: all, and they must all fit.
    partial: list[str] | Literal[True] | None = None
    except_: list[str] = Field([], alias="except")  # paths not to take ("head")
    # f({name: array}) -> parameters as nested dicts: for what another program saved.
    convert: NamedOrName | None = None
    # Parts that have another name now: {"old": "new"}; null for what is not needed. Of a file of
    # another program as training/weights/__init__.py says.
    rename: dict[str, str | None] = {}


class Training(Section):
    """How the network is trained, saved and logged."""

    loss: NamedOrName | None = None
    optimizer: NamedOrName | None = None
    # Several losses and optimizers, by name, in place of `loss` and `optimizer`.
    optimizer_groups: dict[str, OptimizerGroup] | None = None
    metrics: list[NamedOrName] = []
    # A weight for each class, in training only: numbers, or "auto": examples / (classes * those of
    # the class), so that every class counts as much.
    class_weights: Literal["auto"] | list[float] | None = None
    # Passes over the training data; the smaller of the two ends the run. Null, as by default where
    # max_steps is given: as many as max_steps take.
    epochs: Count | None = 10
    max_steps: Count | None = Field(None, lt=2**31)  # updates
    clip_norm: float | None = Field(None, gt=0)  # longest gradient allowed, per group
    # Paths of parts that stay as they are ("stem", "block*/norm"), running statistics included; see
    # docs/fine_tuning.md for paths and for the next three keys.
    freeze: list[str] = []
    # Multipliers of the learning rate by path, {"head": 10, "block*": 0.1}; the first that fits
    # counts, parts that none fits have 1.
    learning_rates: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    # A further multiplier for each layer: this to the power of its distance to the last.
    layer_decay: float | None = Field(None, gt=0, le=1)
    # Paths of layers whose intermediate values are not kept for the backward pass but computed
    # again: less memory, more time.
    remat: list[str] = []
    accumulate: Whole = Field(1, ge=1)  # pieces a batch is processed in, to save memory
    # Updates in one call, at most: more than one pays where an update is shorter than a call; null:
    # 16 where the data are cached on an accelerator, else 1.
    steps_per_call: Whole | None = Field(None, ge=1)
    seeds: Whole = Field(1, ge=1)  # trained at once: seed, seed + 1, ...; metrics are means
    ema: float | None = Field(None, gt=0, lt=1)  # decay of the weights' moving average, per update
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    checkpoint: Annotated[Pretrained | None, _or_string("path", Pretrained | str | None)] = None
    save_dir: str = "saved"
    # "2 epochs", "500 steps" or "10 minutes"; the last is saved anyhow. A number: epochs.
    save_every: Annotated[str, _often("epoch")] = "1 epoch"
    keep: Whole = Field(5, ge=1)  # numbered checkpoints kept, beside the best
    # What the best checkpoint is chosen by: "min NAME" or "max NAME"; null: the last epoch counts.
    # By default "min validation_loss" where there is a validation split, else null.
    monitor: str | None = None
    # Stop after so many evaluations without a better one.
    early_stop: Count | None = None
    evaluate_every: Often = "1 epoch"  # every split but the training one; the last anyhow
    # Steps, from the beginning of each epoch, or minutes; "1 epoch": the epochs' results alone. A
    # number: steps.
    log_every: Annotated[str, _often("step")] = "22 steps"
    # Functions f(run), in this order: see training/callbacks.py.
    callbacks: list[CallbackOrName] = []
    tensorboard: bool = False  # event files in the run folder
    # Functions (inputs, outputs, targets) -> pictures, a table, a number or a text: a section of
    # report.html, of examples of the test set.
    report: list[NamedOrName] = []
    trackers: list[NamedOrName] = []  # besides metrics.jsonl; see training/tracking/__init__.py
    # {"cpu": {option of XLA: value}} for update and evaluation; "gpu", "tpu" as well. null: those
    # that serve most networks; what serves one can slow another by a third.
    compiler_options: dict[Literal["cpu", "gpu", "tpu"], dict[str, Any]] | None = None
    compilation_cache: bool = True  # keep compiled functions in the user's cache folder

    @model_validator(mode="after")
    def _loss_and_optimizer_or_groups(self):
        single = self.loss is not None and self.optimizer is not None
        if single == bool(self.optimizer_groups) or (
            self.optimizer_groups and (self.loss or self.optimizer)
        ):
            raise ValueError("expected either loss and optimizer, or optimizer_groups")
        return self

    @model_validator(mode="after")
    def _something_ends_it(self):
        if self.epochs is None and self.max_steps is None:
            raise ValueError("expected epochs or max_steps, both are null")
        if self.log_every.endswith("epochs"):
            raise ValueError(
                f"expected log_every in steps or minutes, or '1 epoch', as the results"
                f" of every epoch are logged; got {self.log_every!r}"
            )
        return self

    def all_groups(self) -> dict[str, OptimizerGroup]:
        """The optimizer groups by name; one loss and one optimizer are a group called network."""
        if self.loss and self.optimizer:
            return {"network": OptimizerGroup(loss=self.loss, optimizer=self.optimizer)}
        return self.optimizer_groups or {}


class Devices(Section):
    """The devices that train together; all there are by default."""

    count: Whole | None = Field(None, ge=1)  # of all processes together; null: all
    shards: Whole = Field(1, ge=1)  # devices that share one copy of the state; 1: each has its own
    orbax: bool = False  # checkpoints as folders, by Orbax: for states too large to gather

    @model_validator(mode="after")
    def _orbax_is_installed(self):
        if self.orbax and not importlib.util.find_spec("orbax"):
            raise ValueError(f"expected Orbax to be installed for orbax: pip install {ORBAX}")
        return self


class Wandb(Section):
    """Weights & Biases; imported only if enabled."""

    enabled: bool = False
    mode: Literal["online", "offline", "disabled"] = "online"
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    id: str | None = Field(None, pattern=NAME)  # names the run's folder, too


class Config(Section):
    """The whole file."""

    title: str = Field(pattern=NAME)  # names the folder of the runs
    seed: Whole = Field(0, ge=0, lt=2**32)
    # {"name": value}: what "$name" stands for, anywhere here; on the command line name=value.
    variables: dict[str, Any] = {}
    imports: list[str] = []  # packages it may name functions of, besides this project's and optax
    model: NamedOrName
    data_loader: DataLoaders
    training: Training
    # What the network's outputs are: softmax, sigmoid, none, or "package.module:function"; null: as
    # the loss tells.
    output: NamedOrName | None = None
    devices: Devices = Devices()
    wandb: Wandb = Wandb()

    @model_validator(mode="after")
    def _seeds_are_32_bits(self):
        if self.seed + self.training.seeds > 2**32:
            raise ValueError("expected seed + training.seeds to be at most 2**32")
        return self

    def named(self) -> Iterator[tuple[str, str, Named]]:
        """Yields every function the config names: (path, kind, Named)."""
        yield "model", "model", self.model
        for split in ("train", "validation", "test"):
            if getattr(self.data_loader, split):
                yield f"data_loader.{split}", "data_loader", getattr(self.data_loader, split)
        if self.data_loader.preprocess:
            yield "data_loader.preprocess", "transform", self.data_loader.preprocess
        for key, transform in self.data_loader.transforms():
            yield f"data_loader.{key}", "transform", transform
        for index, metric in enumerate(self.training.metrics):
            yield f"training.metrics.{index}", "metric", metric
        for index, callback in enumerate(self.training.callbacks):
            yield f"training.callbacks.{index}", "callback", callback
        for index, tracker in enumerate(self.training.trackers):
            yield f"training.trackers.{index}", "tracker", tracker
        for index, function in enumerate(self.training.report):
            yield f"training.report.{index}", "report", function
        if self.output:
            yield "output", "output", self.output
        if self.training.checkpoint and self.training.checkpoint.convert:
            yield "training.checkpoint.convert", "model", self.training.checkpoint.convert
        for name, group in self.training.all_groups().items():
            where = f".optimizer_groups.{name}" if self.training.optimizer_groups else ""
            for kind in ("loss", "optimizer"):
                yield f"training{where}.{kind}", kind, getattr(group, kind)


def read_config(
    path: str | Path | dict, overrides: Iterable[str] = (), allow: Iterable[str] = ()
) -> Config:
    """Returns the checked config of a file.

    Args:
        path: the JSON file, or its content as a dict.
        overrides: "key.path=value" strings laid over it; a value is JSON, else a plain string.
        allow: packages added to its `imports`.

    Raises:
        UserError: with one line for each thing that is wrong.
    """
    if isinstance(path, dict):
        check_values(path, "config")
        values, path = copy.deepcopy(path), "config"
    else:
        values = read_json(path)
    values.pop("$schema", None)  # is for editors; training/schema.py writes it
    rename_old_keys(values)
    keep_old_behaviour(values, path)
    for override in overrides:
        override = as_variable(override, values, Config.model_fields)
        override_key(values, with_current_key(override), Config)
    rename_old_keys(values)  # those in the values of overrides
    if "variables" in values or not Path(path).with_name("metrics.jsonl").exists():
        substitute(values, path)  # a run of an older version has no variables
    if allow and isinstance(values.setdefault("imports", []), list):
        values["imports"] += [one for one in allow if one not in values["imports"]]
    _choose_defaults(values)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        lines = [*dict.fromkeys(describe(fault, path, Config) for fault in faults[:LISTED])]
        more = len(faults) - LISTED
        raise UserError("\n".join(lines + [f"... and {more} more"] * (more > 0))) from None
    _check_names(config, path)
    return config


def as_overrides(values: dict[str, Any]) -> list[str]:
    """Returns keyword arguments, with __ for the dots, as "key.path=value" strings."""

    def plain(value):  # of NumPy and JAX: their numbers and arrays; of anything else: its text
        return value.tolist() if hasattr(value, "tolist") else str(value)

    texts = {key: json.dumps(value, default=plain) for key, value in values.items()}
    return [f"{key.replace('__', '.')}={text}" for key, text in texts.items()]


def write_config(config: Config, path: str | Path) -> None:
    """Writes the resolved config, every default spelled out."""
    text = json.dumps(escape(config.model_dump()), indent=4)
    atomic_write_text(path, text + "\n")


def _choose_defaults(values):
    """Sets training.epochs and training.monitor where their defaults depend on other keys.

    The monitor's depends on the data that are held out.
    """
    training, args = values.get("training"), values.get("data_loader")
    if isinstance(training, dict) and training.get("max_steps") is not None:
        training.setdefault("epochs", None)
    given = isinstance(args, dict) and args.get("validation")
    for key in ("train", "args"):
        args = args.get(key) if isinstance(args, dict) else None
    if isinstance(args, dict):
        given = given or args.get("validation_split") or args.get("folds")
    if not isinstance(training, dict) or "monitor" in training:
        return
    if given and not training.get("optimizer_groups"):
        training["monitor"] = "min validation_loss"
    elif training.get("early_stop") is not None:  # as it was before the default was null
        training["monitor"] = "min test_loss"


def _check_names(config, path):
    faults = []
    for where, kind, named in config.named():
        place = f"{path}: {where}"
        faults += check_name(named.name, kind, HOMES[kind], f"{place}.name", config.imports)
        faults += _check_nested(named.args, kind, f"{place}.args", config.imports)
    if faults:
        raise UserError("\n".join(faults))


def _check_nested(value, kind, where, imports):
    """Faults of the names inside arguments, such as a learning rate's schedule."""
    faults = []
    if is_named(value):
        faults += check_name(value["name"], kind, HOMES[kind], f"{where}.name", imports)
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            faults += _check_nested(*nested(key, inner, kind), f"{where}.{key}", imports)
    return faults


def nested(key: object, value: Any, kind: str) -> tuple[Any, str]:
    """Returns an argument and its kind, that of what it is for; a sampler is one of its own.

    A bare name of a sampler stands for {"name": ...}; the path of a file of weights for itself.
    """
    if key != "sampler":
        return value, kind
    is_name = isinstance(value, str) and not value.endswith(".npy")
    return {"name": value} if is_name else value, "sampler"


def is_named(value: object) -> bool:
    """Whether a value inside arguments stands for a function: {"name": ...[, "args": ...]}."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and value.keys() <= {"name", "args"}
    )
