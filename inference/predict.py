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

from data_loader.image_folders import find_images, sort_files, summary
from inference.serving.classifier import classify, load
from inference.serving.exports import SUFFIXES, find_export
from utils import UserError, command, csv_text, print_error, printable


@command
def main(argv=None):
    """Runs the command line; returns the exit code."""
    return predict(parse_arguments(argv))


def parse_arguments(argv):
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="PICTURE", help="files, folders, patterns")
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
    paths, left_out, many = find_paths(options.images)
    classifier = load(find_export(options.name, options.runtime))
    faults = []

    def report(error):
        print_error(error)
        faults.append(error)

    if left_out:
        print(f"not used: {summary(left_out)}", file=sys.stderr)
    results = classify(classifier, paths, report)
    if many or options.out:
        out = options.out or "predictions.csv"
        write_csv(out, results, classifier.classes)
        print(
            f"{len(paths) - len(faults)} of {len(paths)} pictures: predictions in {printable(out)}"
        )
    else:
        width = max(len(printable(path)) for path in paths)
        print_lines(results, classifier.classes, options.top, width)
    return 1 if faults else 0


def find_paths(arguments):
    """Finds the pictures that the arguments name.

    Returns:
        Their paths, those of other files by reason, and whether an argument is a folder or pattern.
    """
    paths, left_out, many = [], {}, False
    for argument in arguments:
        if os.path.isfile(argument):  # whatever it is: it was asked for
            paths.append(argument)
            continue
        if os.path.isdir(argument):
            found = find_images(argument)
        elif glob.has_magic(argument):
            matches = glob.iglob(argument, recursive=True)
            found = sort_files(path for path in matches if os.path.isfile(path))
        else:
            raise UserError(
                f"{printable(argument)}: no such file; expected a picture, or a folder of them"
            )
        if not (found.images or found.refused):
            raise UserError(f"{printable(argument)}: no picture{summary(found.left_out, ', but ')}")
        paths += sorted([*found.images, *found.refused])  # these are reported when they are read
        left_out |= {why: left_out.get(why, []) + more for why, more in found.left_out.items()}
        many = True
    return paths, left_out, many


def write_csv(path, results, classes):
    """Writes a line for each result of `classify`: path,prediction,probability,p_<class>,..."""
    try:
        # A path that is not valid text is written as its bytes.
        with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            names = [csv_text(name) for name in classes]
            columns = [f"p_{printable(name)}" for name in classes]
            writer.writerow(["path", "prediction", "probability", *columns])
            for image, probabilities in results:
                row, guess = [f"{one:.6g}" for one in probabilities], probabilities.argmax()
                writer.writerow([csv_text(image), names[guess], row[guess], *row])
    except OSError as error:
        raise UserError(
            f"{printable(path)}: cannot write predictions there: {error.strerror}"
        ) from None


def print_lines(results, classes, top, width):
    """Prints a line for each image: its path, then the likeliest classes' probabilities."""
    names = [printable(name) for name in classes]
    widest = max(map(len, names))
    for path, probabilities in results:
        likeliest = np.argsort(-probabilities, kind="stable")[:top]
        cells = [f"{names[index]:<{widest}} {probabilities[index]:7.2%}" for index in likeliest]
        print("   ".join([f"{printable(path):<{width}}", *cells]))


def _at_least_one(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
