"""Measures how long `python -m data_loader.inspect` takes, over decoding the same files twice.

    python benchmarks/inspect_data.py [--count 10000] [--size 64]

JPEG files of 500 x 375 pixels, in ten classes and two splits, are made in a temporary folder. They
are decoded whole by Pillow, twice, by as many threads as there are cores; then inspected, with the
page. A line for MNIST follows, which is in memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pictures import make_pictures
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def main():
    """Prints a line for the pictures and one for MNIST."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pictures(folder, options.count)
        paths = sorted(folder.rglob("*.jpg"))
        twice = decode(paths) + decode(paths)
        path = folder / "config.json"
        path.write_text(json.dumps(config(name, options.size)))
        seconds = inspect(path)
        print(f"{len(paths):,} JPEGs: inspected in {seconds:.1f} s, decoded twice in {twice:.1f} s")
        print(f"MNIST: inspected in {inspect(ROOT / 'config.json'):.1f} s")


def decode(paths):
    """Returns the seconds that decoding all files takes."""

    def one(path):
        with Image.open(path) as image:
            image.convert("RGB").load()

    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, paths))
    return time.perf_counter() - start


def inspect(path):
    """Returns the seconds that the command takes, from its start to its end."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "data_loader.inspect", "-c", str(path), "--html"]
    done = subprocess.run(
        [*command, str(Path(tempfile.gettempdir()) / "data.html")], cwd=ROOT, capture_output=True
    )
    assert done.returncode in (0, 1), done.stderr.decode()  # 1: the files are copies
    return time.perf_counter() - start


def config(root, size):
    """The sample's config with the pictures in place of MNIST."""
    values = json.loads((ROOT / "config.json").read_text())
    for split, share in (("train", [0, 0.8]), ("test", [0.8, 1])):
        args = {"root": root, "size": [size, size], "mode": "RGB", "share": share}
        data_set = {"name": "ImageFolder", "args": args}
        loader = {"name": "DataLoader", "args": {"dataset": data_set, "batch_size": 64}}
        values["data_loader"][split] = loader
    return values


if __name__ == "__main__":
    main()
