"""Several labels for one picture: which digits of MNIST are on a page, some of which are rare."""

import numpy as np

from data_loader.dataloader import IdxImages

SIDE, CELL = 56, 28  # pixels of a page, which has four places, and of a digit
MOST = 3  # digits on a page
RARE = {8: 0.1, 9: 0.05}  # how often they are put on a page, beside 1 of the other digits


class Pages:
    """Pages with one to three different digits on them.

    Args:
        split: "train" or "test".
        count: number of pages.
        root: folder of MNIST.

    Attributes:
        images: (pages, 1, 56, 56) uint8.
        labels: (pages, 10) int32, 1 for each digit that is there.
        classes: names of the labels.
    """

    classes = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

    def __init__(self, split, count, root="data"):
        random = np.random.default_rng(0 if split == "train" else 1)
        digits = IdxImages(root, split, download="mnist")
        images, found = digits.__getitems__(np.arange(len(digits)))
        places = [np.flatnonzero(found == digit) for digit in range(10)]
        chance = np.array([RARE.get(digit, 1.0) for digit in range(10)])
        self.images = np.zeros((count, 1, SIDE, SIDE), np.uint8)
        self.labels = np.zeros((count, 10), np.int32)
        for page, labels in zip(self.images, self.labels, strict=True):
            chosen = random.choice(10, random.integers(1, MOST + 1), False, chance / chance.sum())
            labels[chosen] = 1
            for digit, place in zip(chosen, random.permutation(4), strict=False):
                top, left = CELL * (place // 2), CELL * (place % 2)
                digit = images[random.choice(places[digit])]
                page[:, top : top + CELL, left : left + CELL] = digit

    def __len__(self):
        """Returns the number of pages."""
        return len(self.labels)

    def __getitems__(self, indices):
        """Returns the pages and labels of a batch."""
        return self.images[indices], self.labels[indices]


def rare_first(labels, epoch, seed):
    """Draws pages with a probability in proportion to that of their rarest label.

    Args:
        labels: (pages, labels) of 0 and 1.
        epoch: number of the epoch, from 1.
        seed: of the loader.

    Returns:
        (pages,) int64
    """
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    weights = (labels / labels.sum(0)).max(1)
    return random.choice(len(labels), len(labels), p=weights / weights.sum())
