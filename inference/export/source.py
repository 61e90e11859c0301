"""The checkpoint and the config that an export is made from.

This module must not import `model`: the run's own copy of it is to be found first.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import utils
from training.checkpoint.naming import find
from training.checkpoint.reading import read
from training.checkpoint.restore import network_params
from training.common.kept_code import use_code_of
from training.config import read_config


class Source(NamedTuple):
    """What an export is made from."""

    config: Any  # Config
    config_file: Path
    checkpoint: Path
    arrays: dict  # `network_params` of the checkpoint


def find_source(weights="latest", config=None, overrides=(), allow=(), **whose_code):
    """Returns the Source; makes the project's folder the current one, as a config's paths expect.

    Weights are a checkpoint's path, a run folder's, or "latest"; a config replaces the run's own.
    The rest is as `read_config` and `use_code_of` take it.
    """
    named = None if weights == "latest" else Path(weights).resolve()
    config_file = Path(config).resolve() if config else None
    os.chdir(utils.ROOT)
    checkpoint = find(named or utils.latest_run("saved"), prefer_best=True).resolve()
    use_code_of(checkpoint.parent, **whose_code)
    config_file = config_file or checkpoint.parent / "config.json"
    config = read_config(config_file, overrides, allow)
    return Source(config, config_file, checkpoint, network_params(read(checkpoint)[0]))
