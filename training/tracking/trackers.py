"""The trackers of a run: started by name, and each given the same numbers, images and files."""

import functools
import importlib.util
import logging
import math
import secrets
import traceback
from pathlib import Path

import numpy as np

from training.common.records import without_password
from training.config import HOMES, Named
from training.distributed.processes import broadcast
from training.tracking.jsonl import JsonLines, LinesFile
from training.tracking.media import MEDIA, Media, as_image, as_name, as_text, as_values
from utils import UserError, check_arguments, resolve, signature_of

LIBRARIES = {  # {tracker: (what it imports, what pip installs)}
    "tensorboard": ("tensorboardX", "tensorboardX"),
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow-skinny==3.17.2"),
}
METRICS, TIMING = JsonLines.FILE, "timing.jsonl"
MOST_FAILURES = 3  # in a row, after which a tracker is not called any more
LOG = logging.getLogger("main")


class Trackers:
    """Gives the numbers of a run to metrics.jsonl and to every tracker that the config names.

    A tracker that fails is named in one warning, and training continues. Clock times are written to
    timing.jsonl alone: two runs of the same config have the same metrics.jsonl. The files are cut
    off to `sizes`, {name: bytes}, which they had when the checkpoint resumed from was saved, after
    `step` batches. A process that writes nothing has no `folder`.
    """

    def __init__(self, config, folder, sizes, step=0):
        self._trackers, self._files = {}, {}  # {place in the config: tracker}, {name: LinesFile}
        self._failures, self._warned = {}, set()  # {(place, method): failures in a row}
        if folder is None:
            return
        try:
            self._files[TIMING] = LinesFile(Path(folder) / TIMING, sizes.get(TIMING, 0))
            for where, named in named_trackers(config).items():
                if named.name == "jsonl":
                    named = Named(name="jsonl", args={"size": sizes.get(METRICS, 0)})
                self._trackers[where] = _start(named, where, Path(folder), config, step)
            self._files[METRICS] = self._trackers["jsonl"]
            self._trackers[MEDIA] = Media(folder, sizes.get(MEDIA, 0))
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._failures.clear()  # all are closed
        for where in self._trackers:
            self._call(where, "close")
        if TIMING in self._files:
            self._files[TIMING].close()

    def log(self, line):
        """Records metrics, a dict with "step"; only numbers are recorded, no matrices.

        What is not finite is null in metrics.jsonl, and other trackers do not get it.
        """
        numbers = {name: value for name, value in line.items() if isinstance(value, int | float)}
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        step, lines = finite.pop("step"), dict.fromkeys(numbers) | finite
        del lines["step"]
        for where in self._trackers:
            self._call(where, "scalars", step, dict(lines if where == "jsonl" else finite))

    def image(self, step, name, array):
        """Records an image.

        Args:
            step: the number of batches trained so far.
            name: what it is called in the trackers.
            array: see `training.tracking.media.as_image`.

        Raises:
            UserError: the array is no image.
        """
        image = as_image(array, as_name(name, "image"))
        self._each("image", step, name, image)

    def text(self, step, name, text):
        """Records a text; see `image`."""
        self._each("text", step, as_name(name, "text"), as_text(text, name))

    def histogram(self, step, name, values):
        """Records the distribution of an array's numbers, of those that are finite."""
        finite = as_values(values, as_name(name, "histogram"))
        if finite.size < np.size(values) and name not in self._warned:
            self._warned.add(name)
            left_out = np.size(values) - finite.size
            LOG.warning("histogram %r: %d of %d values are not finite and are left out",
                        name, left_out, np.size(values))  # fmt: skip
        if finite.size:
            self._each("histogram", step, name, finite)

    def artifact(self, path):
        """Records the finished run's checkpoint, a file or a folder."""
        self._each("artifact", path)

    def time(self, line):
        """Records clock times, a dict, in timing.jsonl."""
        if TIMING in self._files:
            self._files[TIMING].append(line)

    def sizes(self):
        """Returns {name: bytes} of the files as they are now, for a checkpoint."""
        sizes = {name: file.size() for name, file in self._files.items()}
        media = self._trackers[MEDIA].size() if sizes else 0
        return sizes | ({MEDIA: media} if media else {})

    def _each(self, method, *args):
        for where in self._trackers:
            self._call(where, method, *args)

    def _call(self, where, method, *args):
        """Calls a method of a tracker, if it has it; an error is a warning."""
        call, key = getattr(self._trackers[where], method, None), (where, method)
        if call is None or self._failures.get(key, 0) == MOST_FAILURES:
            return
        try:
            call(*args)
            self._failures[key] = 0
        except Exception as error:
            self._failures[key] = self._failures.get(key, 0) + 1
            if where not in self._warned:
                self._warned.add(where)
                LOG.warning(
                    "%s. Training continues, and metrics.jsonl has all numbers; after %d failures "
                    "in a row it is not called any more, and no other is reported",
                    _failure(where, self._trackers[where], error), MOST_FAILURES,
                )  # fmt: skip


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
        library, requirement = LIBRARIES.get(named.name, (None, None))
        spec = importlib.util.find_spec(library) if library else None
        if library and (spec is None or spec.origin is None):  # a folder of that name has no origin
            raise UserError(f"{source}: {where}: needs {library}: pip install {requirement}")


def with_wandb_id(config):
    """Returns the config with an id for Weights & Biases, which is also the run folder's name."""
    used = any(named.name == "wandb" for named in named_trackers(config).values())
    if not used or config.wandb.id:
        return config
    section = config.wandb.model_copy(update={"id": broadcast(secrets.token_hex(4))})
    return config.model_copy(update={"wandb": section})


def _start(named, where, folder, config, step):
    """Returns the tracker of a name, which must have the one method that all have."""
    start = _bind(named, where, folder, config, step)
    try:
        tracker = start()
    except UserError:
        raise
    except Exception as error:
        raise UserError(_failure(where, named.name, error)) from error
    if not callable(getattr(tracker, "scalars", None)):
        raise UserError(
            f"{where}: {named.name} has no method scalars(self, step, values); see "
            "training/tracking/__init__.py"
        )
    return tracker


def _bind(named, where, folder, config, step=0):
    """Returns the tracker's class or function with its arguments, which must fit its signature."""
    function = resolve(named.name, HOMES["tracker"], f"{where}.name")
    start = functools.partial(function, folder, config)
    start.__name__ = getattr(function, "__name__", named.name)
    signature = signature_of(function)
    given = {"step": step} if signature and "step" in signature.parameters else {}
    check_arguments(start, named.args, f"{where}.args", given)
    args = (named.args, {}) if isinstance(named.args, list) else ((), named.args)
    return functools.partial(start, *args[0], **args[1], **given)


def _failure(where, tracker, error):
    """Returns a message that names the tracker and the line of it that failed."""
    name = tracker if isinstance(tracker, str) else type(tracker).__name__
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f" ({one.filename}:{one.lineno}: {one.line})" for one in frames
             if one.filename != __file__]  # fmt: skip
    reason = str(error) if isinstance(error, UserError) else (
        f"{type(error).__name__}: {error}{lines[0] if lines else ''}"
    )  # fmt: skip
    return f"{where}: the tracker {name} failed: {without_password(reason)}"
