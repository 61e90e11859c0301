"""Where a run's figures go: metrics.jsonl always, TensorBoard and Weights & Biases if wanted."""

import json
import logging
import secrets
from pathlib import Path

from training.common.files import disk_errors
from training.distributed.processes import broadcast
from utils import UserError

LOG = logging.getLogger("main")


class Trackers:
    """Writes a run's figures to every place that wants them.

    metrics.jsonl holds no clock times, so two runs of the same config give the same file; those are
    in timing.jsonl.

    Args:
        config: the run's Config.
        folder: the run folder; None in a process that writes nothing.
        sizes: {name: bytes} of the files when the checkpoint resumed from was made; what was
            written later, by a run that was killed, is cut off.
    """

    FILES = ("metrics.jsonl", "timing.jsonl")

    def __init__(self, config, folder, sizes):
        self._files, self._wandb, self._events = {}, None, None
        if folder is None:
            return
        self._files = {name: Lines(Path(folder) / name, sizes.get(name, 0)) for name in self.FILES}
        self._wandb = _start_wandb(config, folder) if config.wandb.enabled else None
        self._events = _open_events(folder) if config.training.tensorboard else None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for file in self._files.values():
            file.close()
        if self._events:
            self._events.close()
        if self._wandb:
            self._wandb.finish(exit_code=0 if kind is None else 1)

    def log(self, line):
        """Records figures, a dict with "step"; what is not a number (a matrix) is left out."""
        line = {name: value for name, value in line.items() if isinstance(value, int | float)}
        self._append("metrics.jsonl", line)
        figures = {name: value for name, value in line.items() if name != "step"}
        if self._wandb:
            self._wandb.log(figures, step=line["step"])
        if self._events:
            for name, value in figures.items():
                self._events.add_scalar(name, value, line["step"])

    def time(self, line):
        """Records clock times."""
        self._append("timing.jsonl", line)

    def sizes(self):
        """Returns {name: bytes} of the files as they are now, to be kept in a checkpoint."""
        return {name: file.size() for name, file in self._files.items()}

    def artifact(self, checkpoint):
        """Hands the finished run's checkpoint to Weights & Biases as its artefact."""
        if self._wandb:
            name = f"network-{self._wandb.id}"
            self._wandb.log_artifact(str(checkpoint), name=name, type="model")

    def _append(self, name, line):
        if name in self._files:
            self._files[name].append(line)


class Lines:
    """A file of JSON lines; what the disk does not take waits in memory for the next line.

    Args:
        path: the file; made if it is not there.
        size: its bytes that are to stay, what is behind them is cut off.
    """

    def __init__(self, path, size):
        self._path, self._waiting = path, b""
        with disk_errors(path):
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115
            there = self._file.tell()
            if there > size:
                self._file.truncate(size)
                self._file.seek(size)
        if there < size:
            LOG.warning("%s: %d bytes of figures are missing", path, size - there)

    def append(self, line):
        """Writes a dict as a line."""
        self._write(json.dumps(line).encode() + b"\n")

    def size(self):
        """Returns the bytes of all lines there have been."""
        self._write(b"")
        return self._file.tell() + len(self._waiting)

    def close(self):
        """Closes the file."""
        self._file.close()

    def _write(self, line):
        waited = bool(self._waiting)
        self._waiting += line
        try:
            with disk_errors(self._path):
                while self._waiting:
                    self._waiting = self._waiting[self._file.write(self._waiting) :]
        except UserError as failure:
            if not waited:
                LOG.warning("NOT WRITTEN: %s Training goes on, and will try again.", failure)


def with_wandb_id(config):
    """Returns the config with an id for Weights & Biases, which names the run folder too."""
    if not config.wandb.enabled or config.wandb.id:
        return config
    named = config.wandb.model_copy(update={"id": broadcast(secrets.token_hex(4))})
    return config.model_copy(update={"wandb": named})


def _open_events(folder):
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(folder))


def _start_wandb(config, folder):
    import wandb

    settings = config.wandb
    try:
        return wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group,
            id=settings.id,
            name=config.title,
            mode=settings.mode,
            dir=str(folder),
            resume="allow",
            config=config.model_dump(exclude={"wandb"}),
        )
    except wandb.errors.Error as error:
        raise UserError(
            f"Weights & Biases does not start: {error}. "
            "Log in with `wandb login`, or keep the figures here: wandb.mode=offline"
        ) from error
