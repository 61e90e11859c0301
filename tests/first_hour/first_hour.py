"""A newcomer's first hour, in a fresh clone and a fresh environment, by the README alone.

    python tests/first_hour/first_hour.py
    python tests/first_hour/first_hour.py --python .venv/bin/python     without installing

Clones the last commit, types the lines of README.md and docs/tutorial.md as they stand there, makes
mistakes, interrupts, looks. Prints what each step took; ends at the first that fails.
"""

import argparse
import gzip
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.browser import BROWSER, Browser  # noqa: E402
from tests.helpers import pages  # noqa: E402

README, TUTORIAL = "README.md", "docs/tutorial.md"
MISTAKES = (  # what is written into config.json, and what it replaces
    ('"mnist_model"', '"mnist_modl"'),
    ('"feat_dims"', '"features"'),
    ('"epochs": 10', '"epochs": "ten"'),
    ('"root": "data", "split": "train"', '"root": "dada", "split": "train", "x": 1'),
    ('"cross_entropy",', '"cross_entropy"'),
    ('"monitor"', '"monitr"'),
)


class Newcomer:
    """Someone in a shell, in the folder of the clone."""

    def __init__(self, folder):
        self.project, self.environment = folder / "project", folder / "environment"
        self.path = f"{self.environment / 'bin'}:{os.environ['PATH']}"

    def start(self, line):
        """Starts a line as it is typed."""
        environment = {**os.environ, "PATH": self.path, "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            ["bash", "-c", f"exec {line}" if line.startswith("python") else line],
            cwd=self.project, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def type(self, line, code=0):
        """Types a line, which must end with an exit code; returns what it prints."""
        process = self.start(line)
        printed = process.communicate()[0]
        assert process.returncode == code, f"{line}\n{printed}"
        assert "Traceback" not in printed, f"{line}\n{printed}"
        return printed

    def write(self, page):
        """Writes what a page says to write."""
        for language, text in pages.blocks(page):
            if language in ("json", "python"):
                first, _, rest = text.partition("\n")
                path = self.project / first.lstrip("#/ ")
                new = language == "json" or not path.exists()
                path.write_text(rest if new else f"{path.read_text()}\n\n{rest}")

    def newest(self, pattern):
        """The newest file that a pattern finds."""
        return max(self.project.glob(pattern), key=lambda path: path.stat().st_mtime)


def lines(page, *parts):
    """The commands of a page that contain one of the parts."""
    return [one.line for one in pages.commands(page) if any(part in one.line for part in parts)]


def clone(one):
    """Clones the project."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(one.project)], check=True)


def install_and_train(one, python=None):
    """Types the first line of the README."""
    (line,) = lines(README, "requirements.txt")
    if python:
        one.path, line = f"{Path(python).parent}:{os.environ['PATH']}", line.partition("&& ")[2]
    else:
        subprocess.run([sys.executable, "-m", "venv", str(one.environment)], check=True)
    accuracy = re.findall(r"\[test\] accuracy @ ([\d.]+)", one.type(line))
    assert float(accuracy[-1]) > 0.98, accuracy


def look_at_the_report(one):
    """Opens the report in Chromium."""
    report = one.newest("saved/MNIST_Sample/*/report.html")
    if BROWSER is None:
        raise SystemExit("there is no Chromium on the path")
    with Browser() as page:
        page.open(report.as_uri())
        assert page.evaluate("document.querySelector('h1').textContent") == "MNIST_Sample"
        assert page.evaluate("document.querySelectorAll('figure.chart').length") >= 3
        assert page.faults == []


def make_mistakes(one):
    """Breaks the config in several ways: each is one message."""
    path = one.project / "config.json"
    right = path.read_text()
    for was, wrong in MISTAKES:
        assert was in right, was
        path.write_text(right.replace(was, wrong))
        assert "error: config.json" in one.type("python train.py", code=1), wrong
    path.write_text(right)


def write_a_network(one):
    """Adds the README's network to model/model.py and trains it."""
    one.write(README)
    for line in lines(README, "model.name=lenet", "data_loader.inspect", "five_lines.py"):
        one.type(line)


def interrupt_and_resume(one):
    """Presses Ctrl-C in an epoch, and resumes."""
    process = one.start("python train.py training.epochs=3")
    for line in process.stdout:
        if "Epoch 2 [22/" in line:
            break
    process.send_signal(signal.SIGINT)
    printed = process.communicate()[0]
    assert process.returncode == 130, printed
    assert "Finished!" in one.type("python train.py --resume latest")
    one.type("python test.py")


def sweep(one):
    """Trains two seeds, and compares them."""
    for line in lines(README, "training.sweep", "training.report.compare"):
        one.type(line)


def export_and_predict(one):
    """Exports the network and asks the file about a digit of the test set."""
    one.type(*lines(README, "convert_tflite.py"))
    images = gzip.decompress((one.project / "data/t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    Image.frombytes("L", (28, 28), images[:784]).save(one.project / "7.png")
    assert re.search(r"7\.png +7 ", one.type("python inference/predict.py --name jax_mnist 7.png"))


def show_the_demo(one):
    """Opens the demo's page."""
    process = one.start("python inference/demo.py --name jax_mnist --port 0 --no-browser")
    address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())[0]
    assert b"Draw a digit" in urllib.request.urlopen(address).read()
    process.send_signal(signal.SIGINT)
    assert "Traceback" not in process.communicate()[0]


def follow_the_tutorial(one):
    """Goes from pictures of its own to predictions."""
    one.write(TUTORIAL)
    for line in lines(TUTORIAL, "python"):
        printed = one.type(line)
    assert printed.split()[1::2] == ["circle", "square"], printed


STEPS = (
    clone, install_and_train, look_at_the_report, make_mistakes, write_a_network,
    interrupt_and_resume, sweep, export_and_predict, show_the_demo, follow_the_tutorial,
)  # fmt: skip


def main():
    """Takes the steps one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", help="of an environment that has requirements.txt already")
    options, began = parser.parse_args(), time.monotonic()
    # A shell has what it starts in the background ignore Ctrl-C, and that would be inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        one = Newcomer(Path(folder))
        for step in STEPS:
            start = time.monotonic()
            step(one, options.python) if step is install_and_train else step(one)
            print(f"{time.monotonic() - start:6.1f} s  {step.__doc__}", flush=True)
    print(f"{time.monotonic() - began:6.1f} s  all of it")


if __name__ == "__main__":
    main()
