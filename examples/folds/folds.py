"""Handwritten digits of scikit-learn in folds: data, a callback, and a tracker of one's own."""

import numpy as np
from sklearn.datasets import load_digits

SCALE = 15  # from 0 ... 16 to 0 ... 255, nearly
HEAD = ["| step | epoch | accuracy |", "|---:|---:|---:|"]  # of a Markdown table
TEST = 297  # examples, the last: of other writers


class Digits:
    """1,797 pictures of 8 x 8 pixels; of other writers in the test set than in the training set.

    Args:
        split: "train" or "test".

    Attributes:
        images: (examples, 1, 8, 8) uint8.
        labels: (examples,) int32; by these every fold has as much of each digit.
    """

    def __init__(self, split):
        data = load_digits()
        rows = slice(-TEST) if split == "train" else slice(-TEST, None)
        self.images = (data.images[rows, None] * SCALE).astype(np.uint8)
        self.labels = data.target[rows].astype(np.int32)
        self.classes = [str(digit) for digit in data.target_names]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]

    def __getitems__(self, indices):
        return self.images[indices], self.labels[indices]


def watch(run, enough, most=20):
    """Logs a picture of the mistakes in the fold held out, and stops once there are few.

    Args:
        run: the run.
        enough: accuracy in the fold at which training stops.
        most: pictures shown.
    """
    held_out = run.experiment.loaders["validation"]
    images, labels = held_out.dataset.__getitems__(held_out.indices)
    wrong = np.flatnonzero(run.predict(images).argmax(1) != labels)
    shown = np.zeros((8, 8 * most), np.uint8)
    for place, index in enumerate(wrong[:most]):
        shown[:, 8 * place : 8 * place + 8] = images[index, 0]
    run.log_image("mistakes", shown)
    run.log_text("mistakes", f"{len(wrong)} of {len(labels)}: {labels[wrong[:most]].tolist()}")
    if 1 - len(wrong) / len(labels) >= enough:
        run.stop(f"{len(wrong)} mistakes are few enough")


class Table:
    """A tracker: the accuracy of each epoch as a Markdown table in the run folder.

    Args:
        folder: the run folder.
        config: the run's Config.
        step: where a resumed run continues; what came later is written again.
    """

    def __init__(self, folder, config, step=0):
        self.path = folder / "accuracy.md"
        lines = self.path.read_text().splitlines()[2:] if self.path.exists() else []
        kept = [line for line in lines if int(line.split("|")[1]) <= step]
        self.path.write_text("\n".join([*HEAD, *kept, ""]))

    def scalars(self, step, values):
        """Writes a row where the numbers are those of an epoch."""
        if "validation_accuracy" in values:
            with open(self.path, "a") as file:
                accuracy = values["validation_accuracy"]
                file.write(f"| {step} | {values['epoch']} | {accuracy:.4f} |\n")
