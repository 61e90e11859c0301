"""The trackers of a run: started by name, and each given the same numbers, images and files."""

import contextlib
import functools
import importlib.util
import logging
import math
import secrets
import traceback
from pathlib import Path

import numpy as np

from training.config import HOMES, Named
from training.distributed.processes import broadcast
from training.tracking.jsonl import JsonLines, LinesFile
from utils import UserError, check_arguments, resolve

LIBRARIES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
METRICS, TIMING = JsonLines.FILE, "timing.jsonl"
METHODS = ("scalars", "image", "artifact", "close")
LOG = logging.getLogger("main")


class Trackers:
    """Gives the numbers of a run to metrics.jsonl and to every tracker that the config names.

    Clock times are written to timing.jsonl alone: two runs of the same config have the same
    metrics.jsonl. Both files are cut off to `sizes`, {name: bytes}, which they had when the
    checkpoint resumed from was saved. A process that writes nothing has no `folder`.
    """

    def __init__(self, config, folder, sizes):
        self._trackers, self._files = {}, {}  # {place in the config: tracker}, {name: LinesFile}
        if folder is None:
            return
        try:
            self._files[TIMING] = LinesFile(Path(folder) / TIMING, sizes.get(TIMING, 0))
            for where, named in named_trackers(config).items():
                if named.name == "jsonl":
                    named = Named(name="jsonl", args={"size": sizes.get(METRICS, 0)})
                self._trackers[where] = _start(named, where, Path(folder), config)
            self._files[METRICS] = self._trackers["jsonl"]
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        failures = []
        for where, tracker in self._trackers.items():
            try:
                with _named_errors(where, tracker):
                    tracker.close()
            except UserError as failure:
                LOG.warning("%s", failure)
                failures.append(failure)
        if TIMING in self._files:
            self._files[TIMING].close()
        if failures and kind is None:
            raise failures[0]

    def log(self, line):
        """Records metrics, a dict with "step"; only numbers are recorded, no matrices.

        What is not finite is null in metrics.jsonl, and other trackers do not get it.
        """
        numbers = {name: value for name, value in line.items() if isinstance(value, int | float)}
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        step, lines = finite.pop("step"), dict.fromkeys(numbers) | finite
        del lines["step"]

        def record(tracker):
            tracker.scalars(step, dict(lines if isinstance(tracker, JsonLines) else finite))

        self._each(record)

    def image(self, step, name, array):
        """Records an image.

        Args:
            step: the number of batches trained so far.
            name: what it is called in the trackers.
            array: uint8 (height, width), (height, width, channels) or (channels, height, width), of
                1, 3 or 4 channels.

        Raises:
            UserError: the array is not such an image.
        """
        array = as_image(array, name)
        self._each(lambda tracker: tracker.image(step, name, array))

    def artifact(self, path):
        """Records the finished run's checkpoint, a file or a folder."""
        self._each(lambda tracker: tracker.artifact(path))

    def time(self, line):
        """Records clock times, a dict, in timing.jsonl."""
        if TIMING in self._files:
            self._files[TIMING].append(line)

    def sizes(self):
        """Returns {name: bytes} of the files as they are now, for a checkpoint."""
        return {name: file.size() for name, file in self._files.items()}

    def _each(self, record):
        for where, tracker in self._trackers.items():
            with _named_errors(where, tracker):
                record(tracker)


def named_trackers(config):
    """Returns {place in the config: Named} of a run's trackers, that of metrics.jsonl first."""
    given = enumerate(config.training.trackers)
    named = {f"training.trackers.{index}": one for index, one in given if one.name != "jsonl"}
    names = [one.name for one in named.values()]
    if config.training.tensorboard and "tensorboard" not in names:
        named["training.tensorboard"] = Named(name="tensorboard")
    if config.wandb.enabled and "wandb" not in names:
        named["wandb"] = Named(name="wandb")
    return {"jsonl": Named(name="jsonl")} | named


def check_trackers(config, source):
    """Checks that the trackers exist and take their arguments, without starting them."""
    for where, named in named_trackers(config).items():
        _bind(named, f"{source}: {where}", None, config)
        library = LIBRARIES.get(named.name)
        spec = importlib.util.find_spec(library) if library else None
        if library and (spec is None or spec.origin is None):  # a folder of that name has no origin
            raise UserError(f"{source}: {where}: needs {library}: pip install {library}")


def with_wandb_id(config):
    """Returns the config with an id for Weights & Biases, which is also the run folder's name."""
    used = any(named.name == "wandb" for named in named_trackers(config).values())
    if not used or config.wandb.id:
        return config
    section = config.wandb.model_copy(update={"id": broadcast(secrets.token_hex(4))})
    return config.model_copy(update={"wandb": section})


def as_image(array, name):
    """Returns an image as uint8 (height, width, channels); see `Trackers.image`."""
    image = np.asarray(array)
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim == 3 and image.shape[2] not in (1, 3, 4) and image.shape[0] in (1, 3, 4):
        image = image.transpose(1, 2, 0)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise UserError(
            f"image {name!r}: got {np.asarray(array).dtype} {np.shape(array)}, expected uint8 "
            "(height, width), (height, width, channels) or (channels, height, width), of 1, 3 or 4 "
            "channels; for floats from 0 to 1: (255 * array).astype(numpy.uint8)"
        )
    return image


def _start(named, where, folder, config):
    """Returns the tracker of a name, after checking that it has the methods of one."""
    start = _bind(named, where, folder, config)
    with _named_errors(where, named.name):
        tracker = start()
    missing = [name for name in METHODS if not callable(getattr(tracker, name, None))]
    if missing:
        raise UserError(
            f"{where}: {named.name} has no method {missing[0]!r}; expected {', '.join(METHODS)}, "
            "as training/tracking/__init__.py describes them"
        )
    return tracker


def _bind(named, where, folder, config):
    """Returns the tracker's class or function with its arguments, which must fit its signature."""
    function = resolve(named.name, HOMES["tracker"], f"{where}.name")
    start = functools.partial(function, folder, config)
    start.__name__ = getattr(function, "__name__", named.name)
    check_arguments(start, named.args, f"{where}.args")
    if isinstance(named.args, dict):
        return functools.partial(start, **named.args)
    return functools.partial(start, *named.args)


@contextlib.contextmanager
def _named_errors(where, tracker):
    """Turns any exception within into an error that names the tracker and its line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        name = tracker if isinstance(tracker, str) else type(tracker).__name__
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f" ({one.filename}:{one.lineno}: {one.line})" for one in frames
                 if one.filename != __file__]  # fmt: skip
        reason = f"{type(error).__name__}: {error}{lines[0] if lines else ''}"
        raise UserError(f"{where}: the tracker {name} failed: {reason}") from error
