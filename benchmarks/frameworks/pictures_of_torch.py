"""Reads the pictures of benchmarks/pictures.py with torchvision: FOLDER SIZE WORKERS."""

import sys

from common import serve
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, PILToTensor, Resize


def main(folder, size, workers):
    """Serves epochs; the "loss" is the mean of some pixels, to compare what is read."""
    data = ImageFolder(folder, Compose([Resize((int(size), int(size))), PILToTensor()]))
    workers = int(workers)
    loader = DataLoader(data, 64, True, num_workers=workers, persistent_workers=workers > 0)

    def epoch():
        total = 0.0
        for inputs, _ in loader:
            total += inputs[:, :, 0, 0].float().mean().item()
        return total / len(loader)

    serve(len(data), epoch)


if __name__ == "__main__":
    main(*sys.argv[1:])
