"""Configs that older versions wrote: keys they named otherwise, and what was different without."""

import logging
import re
from pathlib import Path

OLD_KEYS = (  # of older versions: a pattern of the key's path, and what it is called now
    (r"^data_loader\.device_resident(?=\.|$)", "data_loader.cache_on_device"),
    (r"^training\.rules(?=\.|$)", "training.optimizer_groups"),
    (r"^(training\.optimizer_groups\.[^.]+)\.trains(?=\.|$)", r"\1.params"),
    (r"^training\.save_period$", "training.save_every"),
    (r"^training\.log_interval$", "training.log_every"),
)
LOG = logging.getLogger("main")


def rename_old_keys(values):
    """Gives keys of configs that older versions wrote the names they have now."""
    loaders, training = values.get("data_loader"), values.get("training")
    if isinstance(loaders, dict) and "device_resident" in loaders:
        loaders["cache_on_device"] = loaders.pop("device_resident")
    if isinstance(training, dict):
        for old, new in (("save_period", "save_every"), ("log_interval", "log_every")):
            if old in training and new not in training:  # of both the old one is unknown
                training[new] = training.pop(old)
    if isinstance(training, dict) and "rules" in training:
        training["optimizer_groups"] = groups = training.pop("rules")
        for group in groups.values() if isinstance(groups, dict) else ():
            if isinstance(group, dict) and "trains" in group:
                group["params"] = group.pop("trains")


def with_current_key(override):
    """Returns an override with the name that its key has now."""
    path, separator, text = override.partition("=")
    current = path
    for pattern, name in OLD_KEYS:
        current = re.sub(pattern, name, current)
    if current != path:
        LOG.warning("%s is called %s now; it is taken as such", path, current)
    return f"{current}{separator}{text}"


def keep_old_behaviour(values, path):
    """Gives a run of an older version what it began with.

    The config.json of a run has every key, unless a version without the key wrote it. Validation
    splits had not every class in proportion, and outputs beside labels were taken for logits,
    whatever the loss.
    """
    if not Path(path).with_name("metrics.jsonl").exists():
        return
    loaders, training = values.get("data_loader"), values.get("training")
    if isinstance(loaders, dict):
        loaders.setdefault("stratify", False)
    loss = training.get("loss") if isinstance(training, dict) else None
    name = loss.get("name") if isinstance(loss, dict) else loss
    if "output" not in values and ":" in str(name):
        values["output"] = "softmax"
