"""Classifies pictures with an exported network, without what it was trained with.

python inference/predict.py --name jax_mnist 7.png
python inference/predict.py --name jax_mnist 7.png 8.png --top 2 --runtime tflite
python inference/predict.py --name jax_mnist digits/           a folder, or "digits/*.png": a CSV
python inference/predict.py --name jax_mnist 7.png 8.png --out digits.csv
python inference/predict.py --name inference/jax_mnist/jax_mnist.int8.tflite 7.png

Neither TensorFlow nor, unless it is the runtime, JAX is imported.
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
from utils import UserError, nearest

HOME = Path(__file__).resolve().parent  # of the exports that a name is enough for
SUFFIXES = {"onnx": ".onnx", "tflite": ".tflite", "jax": ".stablehlo"}  # of the runtimes' files


def main(argv=None):
    """Runs the command line; returns the exit code."""
    options = parse_arguments(argv)
    try:
        return predict(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def parse_arguments(argv):
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="PNG or JPEG files, folders, patterns"
    )
    parser.add_argument(
        "--name", required=True, help="an export in inference/, the path of one, or a file of it"
    )
    parser.add_argument("--runtime", choices=SUFFIXES, help="onnx unless --name is a file")
    parser.add_argument(
        "--top", type=_at_least_one, default=3, metavar="K",
        help="how many classes to print, the likeliest first (3)",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="FILE",
        help="write a CSV of all classes in place of printing; predictions.csv where a folder "
        "or pattern is given",
    )  # fmt: skip
    return parser.parse_intermixed_args(argv)


def predict(options):
    """Prints or writes what the network makes of each picture; returns the exit code."""
    paths, many = find_images(options.pictures)
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
    """Returns the paths that files, folders and patterns stand for, and whether one is no file.

    Raises:
        UserError: there is no picture where an argument points.
    """
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
        pictures = [path for path in found if path.lower().endswith(IMAGE_ENDINGS)]
        if not pictures:
            endings = ", ".join(IMAGE_ENDINGS)
            raise UserError(f"{argument}: no picture; expected files ending in {endings}")
        paths, many = paths + pictures, True
    return paths, many


def find_export(name, runtime=None):
    """Returns the path of an exported file.

    Args:
        name: the file, the folder of its export, or the name of one in inference/.
        runtime: key of SUFFIXES; None for that of the file, and ONNX for a folder.

    Raises:
        UserError: it is not there; says what is.
    """
    path, suffix = Path(name), SUFFIXES[runtime or "onnx"]
    if path.is_file():
        if runtime and path.suffix != suffix:
            raise UserError(f"--name {name}: --runtime {runtime} takes a file ending in {suffix}")
        return path
    for folder in (path.resolve(), HOME / path):
        there = sorted(file.name for file in folder.glob(f"{glob.escape(folder.name)}.*"))
        if (wanted := folder.name + suffix) in there:
            return folder / wanted
        if there:
            raise UserError(
                f"{folder}: no {wanted}; there is {', '.join(there)}. "
                "Name one of them by its path, or export the network again"
            )
    known = [report.parent.name for report in HOME.glob("*/report.json")]
    raise UserError(
        f"--name {name}: no such export, here or in {HOME}; inference/convert_tflite.py makes one"
        f"{nearest(name, known)}"
    )


def write_csv(path, results, classes):
    """Writes a line for each picture: path,prediction,probability,p_<class>,...

    Args:
        path: the file.
        results: what `classify` yields.
        classes: their names.

    Raises:
        UserError: it cannot be written.
    """
    try:
        # A path that is no text is written as the bytes it is.
        with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            names = [f"p_{name}" for name in classes]
            writer.writerow(["path", "prediction", "probability", *names])
            for picture, chances in results:
                row, guess = [f"{chance:.6g}" for chance in chances], chances.argmax()
                writer.writerow([picture, classes[guess], row[guess], *row])
    except OSError as error:
        raise UserError(f"{path}: cannot write predictions there: {error.strerror}") from None


def print_lines(results, classes, top, width):
    """Prints a line for each picture: its path, then classes and their probabilities.

    Args:
        results: what `classify` yields.
        classes: their names.
        top: how many of them to print, the likeliest first.
        width: characters of the longest path.
    """
    widest = max(map(len, classes))
    for path, chances in results:
        likeliest = np.argsort(-chances, kind="stable")[:top]
        cells = [f"{classes[index]:<{widest}} {chances[index]:7.2%}" for index in likeliest]
        print("   ".join([f"{path:<{width}}", *cells]))


def _at_least_one(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
