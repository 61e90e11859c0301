"""Numbers, images and the last checkpoint in Weights & Biases."""

import logging
import sys
from html import escape
from pathlib import Path

from training.common.files import disk_errors
from training.common.records import read_lines
from training.tracking.jsonl import JsonLines
from utils import UserError

REPLACED = "replaced"  # beside the offline folders: those whose figures a later one holds, too
LOG = logging.getLogger("main")


class WeightsAndBiases:
    """The tracker that starts or continues a run of Weights & Biases.

    What it gives to W&B is what metrics.jsonl holds: a run that W&B does not have, or that is kept
    offline, begins with the lines of that file. Of several offline folders of one run, the last
    has everything; the others are moved to where `wandb sync` does not look.

    `settings` are further arguments of `wandb.init` ("tags", "notes").
    """

    def __init__(self, folder, config, **settings):
        import wandb

        defaults = config.wandb.model_dump(exclude={"enabled"}) | {
            "name": config.title,
            "dir": str(folder),
            "resume": "allow",
            "config": config.model_dump(exclude={"wandb"}),
        }
        self._handled = sys.exception()  # not an error of this run
        try:
            self._run = wandb.init(**defaults | settings)
        except wandb.errors.Error as error:
            raise UserError(
                f"Weights & Biases does not start: {error}. "
                "Log in with `wandb login`, or keep the metrics here: wandb.mode=offline"
            ) from error
        earlier = read_lines(Path(folder) / JsonLines.FILE)
        last = earlier[-1]["step"] if earlier else 0
        if not self._run.resumed:
            for values in earlier:
                self.scalars(values.pop("step"), values)
            _set_aside_replaced(Path(self._run.settings.sync_dir), self._run.id)
        elif self._run.starting_step > last + 1:
            LOG.warning(
                "Weights & Biases has figures of this run up to step %d and keeps them, but it "
                "continues from step %d. If they are to be others, stop, and resume it as a new "
                "run of W&B, which gets all of them: --resume %s wandb.id=NEW",
                self._run.starting_step - 1, last, folder,
            )  # fmt: skip

    def scalars(self, step, values):
        """Logs the values."""
        self._run.log(values, step=step)

    def image(self, step, name, array):
        """Logs a uint8 (height, width, channels) image."""
        import wandb

        self._run.log({name: wandb.Image(array)}, step=step)

    def text(self, step, name, text):
        """Logs a text, as it is."""
        import wandb

        self._run.log({name: wandb.Html(f"<pre>{escape(text)}</pre>", inject=False)}, step=step)

    def histogram(self, step, name, values):
        """Logs the histogram of (count,) numbers."""
        import wandb

        self._run.log({name: wandb.Histogram(values)}, step=step)

    def artifact(self, path):
        """Logs the finished run's checkpoint as the model "network-<id>"."""
        self._run.log_artifact(str(path), name=f"network-{self._run.id}", type="model")

    def close(self):
        """Ends the run, as failed if an error ended it."""
        failed = sys.exception() not in (None, self._handled)
        self._run.finish(exit_code=int(failed))


def _set_aside_replaced(current, run_id):
    """Moves the other offline folders of a run to where they are not uploaded by accident."""
    others = [one for one in current.parent.glob(f"offline-run-*-{run_id}") if one != current]
    for folder in others:
        with disk_errors(folder):
            (current.parent / REPLACED).mkdir(exist_ok=True)
            folder.rename(current.parent / REPLACED / folder.name)
