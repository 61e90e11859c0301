"""Numbers, images and the last checkpoint in Weights & Biases."""

import sys

from utils import UserError


class WeightsAndBiases:
    """The tracker that starts or continues a run of Weights & Biases.

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

    def scalars(self, step, values):
        """Logs the values."""
        self._run.log(values, step=step)

    def image(self, step, name, array):
        """Logs a uint8 (height, width, channels) image."""
        import wandb

        self._run.log({name: wandb.Image(array)}, step=step)

    def artifact(self, path):
        """Logs the finished run's checkpoint as the model "network-<id>"."""
        self._run.log_artifact(str(path), name=f"network-{self._run.id}", type="model")

    def close(self):
        """Ends the run, as failed if an error ended it."""
        failed = sys.exception() not in (None, self._handled)
        self._run.finish(exit_code=int(failed))
