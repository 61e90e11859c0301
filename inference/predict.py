"""Classifies pictures with an exported network, without the code that trained it.

python inference/predict.py --name jax_mnist 7.png
python inference/predict.py --name jax_mnist 7.png 8.png --top 2 --runtime tflite
python inference/predict.py --name jax_mnist digits/           a folder, or "digits/*.png": a CSV
python inference/predict.py --name jax_mnist 7.png 8.png --out digits.csv
python inference/predict.py --name inference/jax_mnist/jax_mnist.int8.tflite 7.png

It imports neither TensorFlow nor, unless it is the runtime, JAX.
"""

import argparse
import csv
import glob
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `python FILE` looks beside FILE only

import numpy as np

from data_loader.images import IMAGE_ENDINGS
from inference.serving.classifier import classify, load
from inference.serving.exports import SUFFIXES, find_export
from utils import UserError, command


@command
def main(argv=None):
    """Runs the command line; returns the exit code."""
    return predict(parse_arguments(argv))


def parse_arguments(argv):
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "images", nargs="+", metavar="PICTURE", help="PNG or JPEG files, folders, patterns"
    )
    parser.add_argument(
        "--name", required=True, help="an export in inference/, the path of one, or a file of it"
    )
    parser.add_argument("--runtime", choices=SUFFIXES, help="onnx unless --name is a file")
    parser.add_argument(
        "--top", type=_at_least_one, default=3, metavar="K",
        help="number of classes to print, the likeliest first (3)",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="FILE",
        help="write a CSV of all classes in place of printing; predictions.csv where a folder "
        "or pattern is given",
    )  # fmt: skip
    return parser.parse_intermixed_args(argv)


def predict(options):
    """Prints or writes the prediction for each image; returns the exit code."""
    paths, many = find_images(options.images)
    classifier = load(find_export(options.name, options.runtime))
    faults = []

    def report(error):
        print(f"error: {error}", file=sys.stderr)
        faults.append(error)

    results = classify(classifier, paths, report)
    if many or options.out:
        out = options.out or "predictions.csv"
        write_csv(out, results, classifier.classes)
        print(f"{len(paths) - len(faults)} of {len(paths)} pictures: predictions in {out}")
    else:
        print_lines(results, classifier.classes, options.top, max(map(len, paths)))
    return 1 if faults else 0


def find_images(arguments):
    """Returns the paths of all images, and whether an argument is a folder or a pattern."""
    paths, many = [], False
    for argument in arguments:
        if os.path.isfile(argument):
            paths.append(argument)
            continue
        folder = os.path.isdir(argument)
        if not folder and not glob.has_magic(argument):
            raise UserError(f"{argument}: no such file; expected a picture, or a folder of them")
        pattern = os.path.join(glob.escape(argument), "**", "*") if folder else argument
        found = sorted(glob.iglob(pattern, recursive=True))
        images = [path for path in found if path.lower().endswith(IMAGE_ENDINGS)]
        if not images:
            endings = ", ".join(IMAGE_ENDINGS)
            raise UserError(f"{argument}: no picture; expected files ending in {endings}")
        paths, many = paths + images, True
    return paths, many


def write_csv(path, results, classes):
    """Writes a line for each result of `classify`: path,prediction,probability,p_<class>,..."""
    try:
        # A path that is not valid text is written as its bytes.
        with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            names = [f"p_{name}" for name in classes]
            writer.writerow(["path", "prediction", "probability", *names])
            for image, probabilities in results:
                row, guess = [f"{one:.6g}" for one in probabilities], probabilities.argmax()
                writer.writerow([image, classes[guess], row[guess], *row])
    except OSError as error:
        raise UserError(f"{path}: cannot write predictions there: {error.strerror}") from None


def print_lines(results, classes, top, width):
    """Prints a line for each image: its path, then the likeliest classes' probabilities."""
    widest = max(map(len, classes))
    for path, probabilities in results:
        likeliest = np.argsort(-probabilities, kind="stable")[:top]
        cells = [f"{classes[index]:<{widest}} {probabilities[index]:7.2%}" for index in likeliest]
        print("   ".join([f"{path:<{width}}", *cells]))


def _at_least_one(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
