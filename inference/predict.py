"""Shows what an exported network says of pictures, without the code that trained it.

python inference/predict.py --name jax_mnist 7.png
python inference/predict.py --name jax_mnist 7.png 8.png --top 2 --runtime tflite
python inference/predict.py --name jax_mnist digits/           a folder, or "digits/*.png": a CSV
python inference/predict.py --name jax_mnist 7.png 8.png --out digits.csv
python inference/predict.py --name inference/jax_mnist/jax_mnist.int8.tflite 7.png
python inference/predict.py --name tags photo.jpg --threshold 0.3     labels above a probability
python inference/predict.py --name roads photos/ --overlay            masks/<name>.png for each

Which of these it does is said by the export: see docs/outputs.md.
It imports neither TensorFlow nor, unless it is the runtime, JAX.
"""

import argparse
import csv
import glob
import io
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `python FILE` looks beside FILE only

from data_loader.image_folders import find_images, sort_files, summary
from data_loader.locked_files import remove_abandoned, whole_file
from inference.serving.classifier import classify, load
from inference.serving.exports import SUFFIXES, find_export
from inference.serving.results import MaskFolder, columns, words
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
        "--threshold", type=_probability, default=0.5, metavar="P",
        help="of labels that may all be right: the least probability to name one (0.5)",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="PATH",
        help="write a CSV of everything in place of printing; predictions.csv where a folder or "
        "pattern is given. Of masks the folder (masks)",
    )  # fmt: skip
    parser.add_argument(
        "--overlay", action="store_true", help="write masks over the pictures as well"
    )
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
    if (many or options.out) and not classifier.is_mask:
        out = options.out or "predictions.csv"
        write_csv(out, results, lambda result: columns(classifier, result, options.threshold))
        print(
            f"{len(paths) - len(faults)} of {len(paths)} pictures: predictions in {printable(out)}"
        )
        return 1 if faults else 0
    width = max(len(printable(path)) for path in paths)
    masks = MaskFolder(options.out or "masks", options.overlay)
    for path, image, result in results:
        if classifier.is_mask:
            texts = masks.write(classifier, path, image, result, options.threshold)
        else:
            texts = words(classifier, result, options.top, options.threshold)
        print("   ".join([f"{printable(path):<{width}}", *texts]))
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


def write_csv(path, results, columns):
    """Writes a line for each result of `classify`: the path, then its columns, {name: cell}."""
    special = os.path.exists(path) and not os.path.isfile(path)  # /dev/stdout
    try:
        remove_abandoned(Path(path).parent, re.escape(Path(path).name))
        with open(path, "wb") if special else whole_file(path) as file:
            # A path that is not valid text is written as its bytes.
            text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
            writer, begun = csv.writer(text), False
            for image, _, result in results:
                cells = columns(result)
                if not begun:
                    writer.writerow(["path", *cells])
                writer.writerow([csv_text(image), *cells.values()])
                begun = True
            text.flush()
    except OSError as error:
        raise UserError(
            f"{printable(path)}: cannot write predictions there: {error.strerror}"
        ) from None


def _at_least_one(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def _probability(text):
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected 0 to 1, got {number:g}")
    return number


if __name__ == "__main__":
    sys.exit(main())
