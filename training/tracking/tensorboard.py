"""Numbers and images as TensorBoard's event files."""

import time


class TensorBoard:
    """The tracker that writes event files into the run folder: `tensorboard --logdir saved`."""

    def __init__(self, folder, config):
        from tensorboardX import SummaryWriter

        # By itself a file is named by the second; another start in it would overwrite the file.
        self._writer = SummaryWriter(str(folder), filename_suffix=f".{time.time_ns()}")

    def scalars(self, step, values):
        """Writes each value as a scalar of its name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step, name, array):
        """Writes a uint8 (height, width, channels) image."""
        self._writer.add_image(name, array, step, dataformats="HWC")

    def artifact(self, path):
        """Does nothing: the checkpoint is in the same folder."""

    def close(self):
        """Flushes and closes the file."""
        self._writer.close()
