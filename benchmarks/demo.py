"""Measures how fast the demo loads, and how fast it answers: from a stroke's end to the screen.

    python benchmarks/demo.py NAME [--rounds 5] [--strokes 10]

NAME is an export, as for inference/demo.py. Each round starts the demo and a headless Chromium,
loads the page, draws strokes with the mouse, 60 points a second, and reads the browser's own
measurements: navigation timing (until everything is loaded, and until the first content is
painted), and the page's measure from the pointer's release until the answer's frame is painted.
"""

import argparse
import contextlib
import math
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.browser import BROWSER, Browser

DEMO = Path(__file__).resolve().parents[1] / "inference" / "demo.py"
LOADED = "performance.getEntriesByType('navigation')[0]"
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]"
POINTS = 30  # of a stroke
WANTED = 50  # milliseconds for an answer
RATE = 60  # points a second


def main():
    """Prints each round's times, and the medians and maxima of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of an export, as for inference/demo.py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--strokes", type=int, default=10, help="per round")
    options = parser.parse_args()
    if BROWSER is None:
        raise SystemExit("there is no Chromium on the path")
    starts, loads, paints, firsts, answers = [], [], [], [], []
    for number in range(options.rounds):
        began = time.perf_counter()
        with serving(options.name) as address, Browser() as page:
            starts.append(1000 * (time.perf_counter() - began))
            page.look(1280, 800)
            page.open(address)
            loads.append(page.wait(f"{LOADED}.loadEventEnd"))
            paints.append(page.wait(f"{PAINTED}?.startTime"))
            times = [draw(page) for _ in range(options.strokes)]
        firsts.append(times[0])
        answers += times
        print(
            f"round {number + 1}: loaded {loads[-1]:.0f} ms, painted {paints[-1]:.0f} ms, "
            f"answers {' '.join(f'{one:.0f}' for one in times)} ms",
            flush=True,
        )
    for name, times in (
        ("start of demo and browser", starts),
        ("page loaded", loads),
        ("first content painted", paints),
        ("first stroke of a page answered", firsts),
        ("a stroke answered", answers),
    ):
        print(f"{name}: median {statistics.median(times):.0f} ms, at most {max(times):.0f} ms")
    within = sum(one <= WANTED for one in answers)
    print(f"{within} of {len(answers)} strokes answered within {WANTED} ms")


@contextlib.contextmanager
def serving(name, *arguments):
    """Runs inference/demo.py on a free port in a new process; yields its address."""
    command = [sys.executable, str(DEMO), "--name", str(name), "--port", "0", "--no-browser"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            address = re.search(r"http://\S+", line)
            if address is None:
                raise RuntimeError(f"{' '.join(command)} printed {line!r}")
            yield address[0]
        finally:
            process.terminate()


def draw(page):
    """Draws an oval on an empty sheet; returns the milliseconds from its end to the answer."""
    page.press("Escape")
    page.evaluate("performance.clearMeasures()")
    page.stroke(oval(page.box(".paper")), pause=1 / RATE)
    return page.wait("performance.getEntriesByName('answer')[0]?.duration")


def oval(box):
    """Returns the points of an oval in a box (left, top, width, height): a zero."""
    left, top, width, height = box
    angles = [2 * math.pi * index / POINTS for index in range(POINTS + 1)]
    return [
        (left + width * (0.5 - 0.2 * math.sin(angle)), top + height * (0.5 - 0.3 * math.cos(angle)))
        for angle in angles
    ]


if __name__ == "__main__":
    main()
