"""Your data. This class generates some, so that everything runs at once; replace it by yours."""

import numpy as np

EXAMPLES = {"train": 2000, "test": 500}


class MyData:
    """Points in a plane, with two classes: outside and inside a circle around the origin.

    Args:
        split: "train" or "test".

    Attributes:
        classes: their names, in the order of the labels.
    """

    classes = ("outside", "inside")

    def __init__(self, split):
        random = np.random.default_rng(list(EXAMPLES).index(split))
        self.points = random.uniform(-1, 1, (EXAMPLES[split], 2)).astype(np.float32)
        self.labels = (np.square(self.points).sum(1) < 0.6).astype(np.int32)

    def __len__(self):
        """Returns the number of examples."""
        return len(self.labels)

    def __getitem__(self, index):
        """Returns an example: the input, an array of the same shape in all examples; the target."""
        return self.points[index], self.labels[index]
