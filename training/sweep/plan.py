"""Plans a sweep: the values of each key, their combinations, and the folders of the runs."""

import itertools
import json
import math
import random
import re
from pathlib import Path
from typing import Any, NamedTuple

from data_loader.locked_files import open_locked
from training.common.files import disk_errors
from training.common.json_text import parse_value
from training.common.kept_code import sign
from training.common.records import flatten
from training.config import Config, read_config, write_config
from training.tracking.trackers import with_wandb_id
from utils import UserError

LIKE = 'like "training.optimizer.args.learning_rate=[0.01,0.02]" or "seed=[0,1,2]"'
MAX_NAME = 60  # characters of a value in a folder's name
ERRORS = "errors.log"  # in a run's folder, while it is training or if it failed
RANGE = re.compile(r"(?:(log|uniform)\(([^,()]+),([^,()]+)\)|(.+?)\.\.(.+))")


class Range(NamedTuple):
    """A range to draw values from; without a `scale`, "log" if both ends are above 0."""

    low: float
    high: float
    scale: str = ""  # "log" or "uniform"

    @property
    def integer(self):
        """Whether only integers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def log(self):
        """Whether the logarithm is drawn."""
        return self.scale == "log" or (not self.scale and self.low > 0)

    def draw(self, seed):
        """Returns a value; the same seed gives the same value."""
        transform, inverse = (math.log, math.exp) if self.log else (float, float)
        value = inverse(random.Random(seed).uniform(transform(self.low), transform(self.high)))
        return self.rounded(value)

    def rounded(self, value):
        """Returns a value as it is tried: an integer, or a number of 4 digits."""
        if self.integer:
            return round(value)
        return min(max(float(f"{value:.4g}"), self.low), self.high)


class Run(NamedTuple):
    """A run of a sweep: the values it tries, by their keys, its config and its folder."""

    values: dict[str, Any]
    config: Config
    folder: Path
    state: str = ""  # why it is not to be finished


def parse_overrides(overrides, trials, search=False):
    """Returns the overrides that apply to every run, and {key: list of values to try, or Range}.

    `trials` says how many are drawn, `search` whether also from lists.
    """
    fixed, choices = [], {}
    for override in overrides:
        key, _, text = override.partition("=")
        found = _range(text, override) or _list(text, override)
        if found is None:
            fixed.append(override)
        elif choices.setdefault(key, found) is not found:
            raise UserError(f"{key}: its values to try are given twice; give them once")
    ranges = [key for key, one in choices.items() if isinstance(one, Range)]
    if not choices:
        raise UserError(f"nothing to try: give a key several values, {LIKE}")
    if ranges and not trials:
        raise UserError(f"{ranges[0]}: a range; say how many values to draw, like --trials 20")
    if trials and not ranges and not search:
        raise UserError("--trials: no key has a range to draw from, like weight_decay=0.001..0.1")
    # Sorted, so that the order on the command line does not change the runs' names.
    return fixed, dict(sorted(choices.items(), key=lambda pair: (pair[0] == "seed", pair[0])))


def plan(path, fixed, choices, trials, name=None):
    """Returns the Runs, each with its config checked; creates no file.

    Args:
        path: of the config's file.
        fixed, choices: what `parse_overrides` returned.
        trials: how often to draw from each Range; None without any.
        name: of the sweep's folder; None: the short names of the keys.
    """
    _refuse_plain_lists(path, fixed, choices)
    short, found = short_names(list(choices)), {}
    for values in _combinations(choices, trials):
        config = read_config(path, fixed + [f"{k}={json.dumps(v)}" for k, v in values.items()])
        title = ",".join(f"{short[key]}={_file_name(value)}" for key, value in values.items())
        if found.setdefault(title, (values, config))[0] != values:
            raise UserError(f"two runs would both be called {title}; use other values")
    same = {(c.title, c.training.save_dir, c.training.monitor) for _, c in found.values()}
    if len(same) > 1:
        raise UserError(
            "title, training.save_dir and training.monitor: expected the same in all runs"
        )
    ((title, save_dir, monitor),) = same
    if monitor and not re.fullmatch(r"(min|max) \S+", monitor):
        raise UserError(f"training.monitor: expected 'min NAME' or 'max NAME', got {monitor!r}")
    name = name or "-".join(short.values())
    if not re.fullmatch(r"\w[\w .+-]*", name):
        raise UserError(f"--name {name!r}: expected letters, digits and any of _ . + - or a space")
    folder = Path(save_dir, f"{title}-sweep", name)
    return [Run(values, config, folder / run) for run, (values, config) in found.items()]


def create_folders(runs):
    """Creates the missing run folders, if the existing ones have the same configs."""
    new = []
    for run in runs:
        if (run.folder / "config.json").exists():
            _check_same(run.config, run.folder)
        else:
            new.append(run)
    for run in new:
        with disk_errors(run.folder):
            run.folder.mkdir(parents=True, exist_ok=True)
            claim = open_locked(run.folder / ERRORS)
        if claim is None:  # the same sweep, started twice, is making it
            continue
        with claim:
            if not (run.folder / "config.json").exists():
                write_config(with_wandb_id(run.config), run.folder / "config.json")
                sign(run.folder, {}, run.config.imports)
                (run.folder / ERRORS).unlink()


def short_names(keys):
    """Returns {key: its shortest informative ending that no other key has}."""
    short = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        ends = [end for end in ends if not re.match(r"(name|args|[0-9]+)\b", end)]
        ends = [end for end in ends if sum(f".{one}".endswith(f".{end}") for one in keys) == 1]
        short[key] = (ends or [key])[0]
    return short


def value_text(value):
    """Returns a value as text that train.py reads after `key=`."""
    try:
        plain = isinstance(value, str) and parse_value(value, value) == value
    except UserError:  # a text such as "nan"
        plain = False
    return value if plain else json.dumps(value)


def _range(text, override):
    """The Range of "LOW..HIGH", "log(LOW,HIGH)" or "uniform(LOW,HIGH)", or None."""
    found = RANGE.fullmatch(text)
    if not found or text.count("..") > 1:
        return None
    scale, *ends = found[1] or "", *(part for part in found.groups()[1:] if part)
    low, high = (parse_value(end.strip(), override) for end in ends)
    if not all(type(end) in (int, float) for end in (low, high)):
        return None
    if not -math.inf < low < high < math.inf:
        raise UserError(f"{override}: expected LOW..HIGH, the lower end first")
    if scale == "log" and low <= 0:
        raise UserError(f"{override}: a logarithm needs ends above 0; write uniform(LOW,HIGH)")
    return Range(low, high, scale)


def _list(text, override):
    """The values of "[a,b]", or None."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    values = parse_value(text, override)
    if not values or len({json.dumps(value) for value in values}) < len(values):
        raise UserError(f"{override}: expected one value or more, each of them once")
    return values


def _combinations(choices, trials):
    """Yields {key: value}: each combination of the values, for each draw from the ranges."""
    for trial in range(trials or 1):
        columns = [
            [one.draw(f"{key} {trial}")] if isinstance(one, Range) else one
            for key, one in choices.items()
        ]
        for values in itertools.product(*columns):
            yield dict(zip(choices, values, strict=True))


def _refuse_plain_lists(path, fixed, choices):
    """Refuses brackets that may be meant as the value, where the config has a list."""
    firsts = {key: one.low if isinstance(one, Range) else one[0] for key, one in choices.items()}
    variables = [f"{key}={json.dumps(one)}" for key, one in firsts.items() if "." not in key]
    config = read_config(path, fixed + variables).model_dump()
    for key, values in choices.items():
        value = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, list) and not all(isinstance(one, list) for one in values):
            text = json.dumps(values, separators=(",", ":"))
            raise UserError(
                f"{key}={text}: the config has a list there, and the outer brackets contain the "
                f"values to try: write {key}=[{text}] for this one, =[{text},[...]] for several"
            )


def _check_same(config, folder):
    previous = read_config(folder / "config.json")
    # An older run keeps its own way of holding examples out.
    apart = {"wandb": True, "data_loader": {"stratify"}}
    was, now = (one.model_dump(exclude=apart) for one in (previous, config))
    if was != now:
        was, now = dict(flatten(was)), dict(flatten(now))
        key = next(key for key in was | now if was.get(key) != now.get(key))
        raise UserError(
            f"{folder}: was created with {key}={was.get(key, 'nothing')}, now it is "
            f"{now.get(key, 'nothing')}. Name another folder with --name, or move this one away"
        )


def _file_name(value):
    return re.sub(r"[^\w.+-]+", "_", value_text(value)).strip("_")[:MAX_NAME]
