"""An exported network that tells pictures apart, used as its metadata says, with NumPy alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_loader.images import read_image
from inference.verify import runtimes
from utils import UserError, check_arguments

MODES = {1: "L", 3: "RGB"}  # Pillow's, by the number of channels
LARGEST_BATCH = 64  # pictures at a time, where the file leaves that open
NORMALIZE = ("normalize", "data_loader.transforms:normalize")  # what a config may call it


class Classifier(NamedTuple):
    """What an exported file is to somebody who has pictures."""

    run: Callable  # (batch, channels, height, width) uint8 -> (batch, classes) logits
    shape: tuple  # (channels, height, width)
    batch: int | None  # the batch size; None for any
    classes: list[str]
    metadata: dict  # what the file says of itself, see network.py


def load(path, threads=None):
    """Loads an exported network that takes pictures and gives a logit for each class.

    Args:
        path: .onnx, .tflite or .stablehlo file; the last one with its export's report.json beside.
        threads: number of threads to compute with; None for the runtime's own choice.

    Raises:
        UserError: it cannot be loaded, or does something else.
    """
    path = Path(path)
    network = runtimes.load(path, threads)
    metadata = network.metadata or _report(path)
    outputs = network.outputs
    if not network.metadata:  # StableHLO has no names, only an order
        outputs = dict(zip(metadata["outputs"], outputs.values(), strict=True))
    name, (batch, *shape), dtype = _picture(path, network.inputs)
    position, classes = _classes(path, outputs, metadata.get("classes"))
    prepare = _preprocessing(path, metadata.get("preprocess"))

    def run(pixels):
        results = network.run({name: prepare(pixels).astype(dtype, copy=False)})
        return list(results.values())[position]

    batch = batch if isinstance(batch, int) else None
    return Classifier(run, tuple(shape), batch, classes, metadata)


def classify(classifier, paths, report):
    """Yields (path, (classes,) probabilities) for the pictures at the paths, in their order.

    Args:
        classifier: Classifier.
        paths: list of the pictures' paths.
        report: called with the UserError of each picture that cannot be read and is left out.
    """
    channels, *size = classifier.shape
    most = classifier.batch or min(LARGEST_BATCH, len(paths))
    pictures = []
    for index, path in enumerate(paths, start=1):
        try:
            pictures.append((path, read_image(path, tuple(size), MODES[channels])))
        except UserError as error:
            report(error)
        if pictures and (len(pictures) == most or index == len(paths)):
            yield from _classify_batch(classifier.run, pictures, most)
            pictures = []


def normalize(pixels, mean, std):
    """Does in NumPy what data_loader/transforms.py does in JAX: (pixels / 255 - mean) / std.

    Args:
        pixels: (batch, channels, height, width) uint8.
        mean, std: of the data set on the scale 0 ... 1; a number, or one per channel.

    Returns:
        (batch, channels, height, width) float32
    """
    mean, std = (np.asarray(value, np.float32).reshape(-1, 1, 1) for value in (mean, std))
    return (pixels.astype(np.float32) / 255 - mean) / std


def softmax(logits):
    """Returns the probabilities of (..., classes) logits, however large those are."""
    logits = np.asarray(logits, np.float64)
    with np.errstate(invalid="ignore"):  # a network that diverged says NaN, and so do we
        chances = np.exp(logits - logits.max(-1, keepdims=True))
        return chances / chances.sum(-1, keepdims=True)


def _classify_batch(run, pictures, size):
    """Fills a batch up to its size, since another shape is work for some runtimes."""
    paths, pixels = zip(*pictures, strict=True)
    filled = np.stack([*pixels, *pixels[-1:] * (size - len(pixels))])
    return zip(paths, softmax(run(filled))[: len(paths)], strict=True)


def _report(path):
    """The metadata in the report of an export, for a file that has none itself."""
    report = path.parent / "report.json"
    try:
        metadata = json.loads(report.read_text(encoding="utf-8"))["metadata"]
    except (OSError, ValueError, KeyError, TypeError):
        metadata = None
    if not isinstance(metadata, dict) or "outputs" not in metadata:
        raise UserError(
            f"{path}: how to use it is said neither in the file nor in {report}; expected what "
            "inference/convert_tflite.py writes there. Export it again"
        )
    return metadata


def _picture(path, inputs):
    """The name, shape and dtype of the one input, which must be a picture."""
    for name, (shape, dtype) in inputs.items():
        sizes = len(shape) == 4 and all(isinstance(size, int) for size in shape[1:])
        if len(inputs) == 1 and sizes and shape[1] in MODES:
            return name, shape, dtype
    raise UserError(
        f"{path}: takes {_describe(inputs)}; expected a picture, (batch, channels, height, width) "
        "of 1 channel or 3. For other data call inference.verify.runtimes.load and its run"
    )


def _classes(path, outputs, classes):
    """The position of the output with a logit for each class, and the classes' names."""
    likely = [
        name
        for name, (shape, dtype) in outputs.items()
        if len(shape) == 2 and shape[1] not in (1, "batch") and dtype.kind == "f"
    ]
    name = "logits" if "logits" in likely else likely[0] if len(likely) == 1 else None
    if name is None:
        raise UserError(
            f"{path}: gives {_describe(outputs)}; expected a logit for each class, "
            "(batch, classes), in one output or in the one called logits"
        )
    count = outputs[name][0][1]
    classes = classes or [str(index) for index in range(count)]
    if len(classes) != count:
        raise UserError(f"{path}: has names for {len(classes)} classes, and {count} logits")
    return list(outputs).index(name), classes


def _describe(arrays):
    """Names, shapes and dtypes in words."""
    return ", ".join(
        f"{name} ({', '.join(map(str, shape))}) {dtype}" for name, (shape, dtype) in arrays.items()
    )


def _preprocessing(path, preprocess):
    """What is to be done to pictures before they go into the file: a function of uint8 arrays."""
    if not preprocess or preprocess["where"] == "inside":
        return lambda pixels: pixels
    if preprocess["name"] not in NORMALIZE:
        raise UserError(
            f"{path}: wants its input preprocessed by {preprocess['name']}, of which this program "
            "knows nothing; it does normalize. Export the network with --preprocess inside"
        )
    args = preprocess["args"]
    named = args if isinstance(args, dict) else dict(zip(("mean", "std"), args, strict=False))
    check_arguments(normalize, named, f"{path}: preprocess", given=("pixels",))
    return lambda pixels: normalize(pixels, **named)
