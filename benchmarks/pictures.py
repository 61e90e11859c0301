"""Measures how fast pictures are read here, and by torchvision's ImageFolder with a DataLoader.

    python benchmarks/pictures.py --peers PYTHON [--count 10000] [--sizes 64 224] [--workers 2]

PYTHON is the interpreter of a virtual environment with torch, torchvision and this project's
requirements. JPEG files of 500 x 375 pixels, in ten classes, are made in a temporary folder. Both
read all of them in batches of 64, in a new order each time, as uint8 (64, 3, size, size), with the
same number of workers: threads or processes here, processes there. They take turns, each in its own
process; the first round, which fills the system's cache of files, is not counted.
"""

import argparse
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from peers import FRAMEWORKS, Program, ratios
from PIL import Image

WIDTH, HEIGHT, QUALITY = 500, 375, 90
CLASSES, DISTINCT = 10, 100  # pictures that differ; the others are copies of these


def main():
    """Prints a line of times and ratios for each size and kind of worker."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, metavar="PYTHON")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 224])
    parser.add_argument("--workers", type=int, default=2)
    kinds = ["thread", "process"]
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, help="of workers here")
    options = parser.parse_args()
    print("| size | workers | template, s | torchvision, s | torchvision / template |")
    print("|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder), options.count)
        for size in options.sizes:
            for kind in options.kinds:
                compare(folder, size, kind, options)


def make_pictures(folder, count):
    """Writes JPEG files of smooth colours with some grain, about 90 KB each."""
    random = np.random.default_rng(0)
    files = []
    for _ in range(min(count, DISTINCT)):
        colours = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(colours.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.int16)
        grain = random.normal(0, 12, (HEIGHT, WIDTH, 1)).astype(np.int16)
        picture = Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
        picture.save(folder / "one.jpg", quality=QUALITY)
        files.append((folder / "one.jpg").read_bytes())
    (folder / "one.jpg").unlink()
    for number in range(count):
        path = folder / f"class{number % CLASSES}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(files[number % len(files)])


def compare(folder, size, kind, options):
    """Prints the line of a size: median times, and the median and range of their ratios."""
    arguments = (folder, str(size), str(options.workers))
    commands = {
        "template": (sys.executable, FRAMEWORKS / "pictures_of_template.py", *arguments, kind),
        "torchvision": (options.peers, FRAMEWORKS / "pictures_of_torch.py", *arguments),
    }
    times = {name: [] for name in commands}
    with ExitStack() as stack:
        programs = {
            name: stack.enter_context(Program(os.environ, *line)) for name, line in commands.items()
        }
        for number in range(options.rounds + 1):
            for name, program in programs.items():
                answer = program.epoch()
                print(f"{size} {kind} {number} {name}: {answer}", file=sys.stderr, flush=True)
                if answer is None or program.parameters != options.count:
                    raise SystemExit(f"{name} finds {program.parameters} pictures")
                if number > 0:
                    times[name].append(answer["seconds"])
    ours, theirs = (statistics.median(times[name]) for name in ("template", "torchvision"))
    pairs = zip(times["torchvision"], times["template"], strict=True)
    shown = ratios([one / other for one, other in pairs])
    workers = f"{options.workers} ({kind})"
    print(f"| {size} | {workers} | {ours:.2f} | {theirs:.2f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
