"""Reads the pictures of benchmarks/pictures.py with this template: FOLDER SIZE WORKERS KIND."""

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import serve

from data_loader.dataloader import DataLoader, ImageFolder


def main(folder, size, workers, kind):
    """Serves epochs; the "loss" is the mean of all pixels, to compare what is read."""
    data, numbers = ImageFolder(folder, [int(size)] * 2, "RGB"), itertools.count(1)
    loader = DataLoader(data, 64, True, workers=int(workers), worker_kind=kind)

    def epoch():
        total = 0.0
        for batch in loader.batches(next(numbers)):
            total += batch["inputs"][:, :, 0, 0].mean()
        return total / len(loader)

    serve(len(data), epoch)


if __name__ == "__main__":
    main(*sys.argv[1:])
