"""An exported classifier of images, used as its metadata says, with NumPy only."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_loader.images import read_image
from data_loader.masks import label_axis
from inference.verify import runtimes
from inference.verify.metadata import LARGEST, check_metadata, parse_metadata
from utils import UserError, check_arguments, printable

MODES = {1: "L", 3: "RGB"}  # Pillow's, by the number of channels
LARGEST_BATCH = 64  # images at a time, where the file takes any number
LARGEST_INPUT, MOST_CLASSES = 2**27, 2**20  # values of a batch; more are no images, but a mistake
MOST = 1e6  # of a mean or a standard deviation
NORMALIZE = ("normalize", "data_loader.transforms:normalize")  # its names in a config


class Classifier(NamedTuple):
    """An exported file that takes pictures, and what its outputs are."""

    run: Callable  # (batch, channels, height, width) uint8 -> logits (batch, ...); of values a dict
    shape: tuple  # (channels, height, width)
    batch: int | None  # the batch size; None for any
    classes: list[str]  # of "none" the names of the values, or []
    metadata: dict  # of the file, see export/network.py
    kind: str = "softmax"  # "softmax", "sigmoid" or "none": what makes of outputs what is read
    is_mask: bool = False  # whether there are logits for each pixel
    output: str | None = None  # the name of the output with the logits

    def probabilities(self, logits):
        """Returns the probabilities of (..., classes) logits, which sum to 1 where one is right."""
        return PROBABILITIES[self.kind](logits)

    def read(self, file, max_pixels=None):
        """Returns the image in a file as training read it, (channels, height, width) uint8."""
        channels, *size = self.shape
        value_range = self.metadata.get("value_range")
        return read_image(file, tuple(size), MODES[channels], value_range, max_pixels)


def load(path, threads=None):
    """Loads an exported network that takes images.

    Args:
        path: .onnx, .tflite or .stablehlo file; the last one needs report.json of its export
            beside it.
        threads: number of threads to compute with; None for the runtime's own choice.

    Raises:
        UserError: it cannot be loaded, or is no such network.
    """
    path = Path(path)
    network = runtimes.load(path, threads)
    metadata = network.metadata or _report(path)
    outputs = network.outputs
    if not network.metadata:  # StableHLO has an order of outputs, but no names
        if len(metadata["outputs"]) != len(outputs):
            raise UserError(f"{path}: its report.json has {len(metadata['outputs'])} outputs")
        outputs = dict(zip(metadata["outputs"], outputs.values(), strict=True))
    name, (batch, *shape), dtype = _image_input(path, network.inputs)
    batch = batch if isinstance(batch, int) else None
    kind, position, classes, is_mask = _meaning(path, outputs, metadata, shape[1:])
    prepare = _preprocessing(path, metadata.get("preprocess"), shape[0])
    names = list(outputs)
    output = None if position is None else names[position]

    def run(pixels):
        try:
            results = network.run({name: prepare(pixels).astype(dtype, copy=False)})
        except Exception as error:  # each runtime has exceptions of its own
            raise UserError(f"{path}: fails on a picture: {printable(error)[:300]}") from None
        results = dict(zip(names, results.values(), strict=True))
        if output is None:
            return results
        logits = results[output]
        if logits.shape != (len(pixels), *outputs[output][0][1:]):
            raise UserError(f"{path}: gives logits of shape {logits.shape}, not what it states")
        return logits

    return Classifier(run, tuple(shape), batch, classes, metadata, kind, is_mask, output)


def classify(classifier, paths, report):
    """Yields (path, image, result) for the images at the paths, in their order.

    A result has the (..., classes) probabilities; of a network that gives values, these by name.

    Args:
        classifier: Classifier.
        paths: list of the images' paths.
        report: called with the UserError of each image that cannot be read; it is left out.
    """
    most = classifier.batch or min(LARGEST_BATCH, len(paths))
    images = []
    for index, path in enumerate(paths, start=1):
        try:
            images.append((path, classifier.read(path)))
        except UserError as error:
            report(error)
        if images and (len(images) == most or index == len(paths)):
            yield from _classify_batch(classifier, images, most)
            images = []


def normalize(pixels, mean, std):
    """Computes (pixels / 255 - mean) / std in NumPy, as data_loader/transforms.py does in JAX.

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
    with np.errstate(invalid="ignore"):  # NaN of a network that diverged stays NaN
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)


def sigmoid(logits):
    """Returns the probabilities of (..., classes) log-odds, each by itself."""
    return 0.5 * (1 + np.tanh(np.asarray(logits, np.float64) / 2))


PROBABILITIES = {"softmax": softmax, "sigmoid": sigmoid}


def _classify_batch(classifier, images, size):
    """Classifies a batch filled up to its size, since some runtimes prepare for each new shape."""
    pixels = [image for _, image in images]
    filled = np.stack([*pixels, *pixels[-1:] * (size - len(pixels))])
    outputs = classifier.run(filled)
    for index, (path, image) in enumerate(images):
        if classifier.kind == "none":
            yield path, image, {name: values[index] for name, values in outputs.items()}
        else:
            yield path, image, classifier.probabilities(outputs[index])


def _report(path):
    """The metadata in an export's report.json, for a file that has none itself."""
    report = path.parent / "report.json"
    metadata = None
    with contextlib.suppress(OSError, UserError), open(report, "rb") as file:
        metadata = parse_metadata(file.read(LARGEST + 1), report).get("metadata")
    if isinstance(metadata, dict):
        check_metadata(metadata, report)
    if not isinstance(metadata, dict) or "outputs" not in metadata:
        raise UserError(
            f"{path}: neither the file nor {report} says how to use it; expected what "
            "inference/convert_tflite.py writes there. Export it again"
        )
    return metadata


def _image_input(path, inputs):
    """The name, shape and dtype of the single input, which must be an image."""
    for name, (shape, dtype) in inputs.items():
        sizes = len(shape) == 4 and all(isinstance(size, int) for size in shape[1:])
        if len(inputs) == 1 and sizes and shape[1] in MODES and min(shape[2:]) > 0:
            if math.prod(one for one in shape if one != "batch") > LARGEST_INPUT:
                raise UserError(f"{path}: takes {_describe(inputs)}, too large a batch of pictures")
            return name, shape, dtype
    raise UserError(
        f"{path}: takes {_describe(inputs)}; expected a picture, (batch, channels, height, width) "
        "of 1 channel or 3. For other data call inference.verify.runtimes.load and its run"
    )


def _meaning(path, outputs, metadata, size):
    """The kind of the outputs, the position of the logits, the classes' names, whether a mask."""
    said = metadata.get("output")
    if not said:  # of an older export, which is of a classifier
        kind, wanted = metadata.get("probabilities", "softmax"), None
        if kind not in PROBABILITIES:
            raise UserError(
                f"{path}: what its outputs mean is not known: it was trained with another loss "
                "than cross-entropies, on targets that are no labels. Export it again, or call "
                "inference.verify.runtimes.load and its run"
            )
        labels = metadata.get("classes")
    else:
        kind, wanted, labels = said["kind"], said.get("name"), said.get("labels")
    if kind == "none":
        return kind, None, labels or [], False
    likely = [
        name
        for name, ((_, *sizes), dtype) in outputs.items()
        if sizes and "batch" not in sizes and dtype.kind == "f"
        if said or (len(sizes) == 1 and sizes != [1])
    ]
    wanted = wanted or "logits"
    name = wanted if wanted in likely else likely[0] if len(likely) == 1 else None
    shape = outputs[name][0][1:] if name else ()
    is_mask = len(shape) in (2, 3) and bool(said)
    if not (len(shape) == 1 or is_mask) or (kind == "softmax" and len(shape) == 2):
        raise UserError(
            f"{path}: gives {_describe(outputs)}; expected a logit for each class, "
            "(batch, classes) or (batch, height, width, classes), in one output or in the one "
            "called logits"
        )
    position = list(outputs).index(name)
    count = shape[-1]
    if is_mask and kind == "sigmoid":
        count = 1 if len(shape) == 2 else shape[label_axis(shape, size)]
    if not isinstance(count, int) or not 0 < count <= MOST_CLASSES:
        raise UserError(f"{path}: gives {count} logits; expected at most {MOST_CLASSES:,} classes")
    if math.prod(shape) > LARGEST_INPUT:
        raise UserError(f"{path}: gives {_describe(outputs)}, too large a mask")
    labels = labels or [str(index) for index in range(count)]
    if len(labels) != count:
        raise UserError(f"{path}: has names for {len(labels)} classes, and {count} logits")
    return kind, position, labels, is_mask


def _describe(arrays):
    """Names, shapes and dtypes in words."""
    words = ", ".join(
        f"{name} ({', '.join(map(str, shape))}) {dtype}" for name, (shape, dtype) in arrays.items()
    )
    return printable(words if len(words) <= 300 else f"{words[:300]} ...")


def _preprocessing(path, preprocess, channels):
    """The preprocessing of images that the file leaves to its user: a function of uint8 arrays."""
    named = outside(path, preprocess, channels)
    return (lambda pixels: normalize(pixels, **named)) if named else lambda pixels: pixels


def outside(path, preprocess, channels):
    """Returns the arguments of the `normalize` that a file leaves to its user; {} of none.

    Args:
        path: of the file, for messages.
        preprocess: of its metadata.
        channels: of its pictures.

    Raises:
        UserError: it wants another preprocessing, or other arguments.
    """
    if not preprocess or preprocess["where"] == "inside":
        return {}
    if preprocess["name"] not in NORMALIZE or preprocess["where"] != "outside":
        raise UserError(
            f"{path}: wants its input preprocessed by {printable(preprocess['name'])[:100]}, "
            "unknown to this program; it knows normalize. Export the network with --preprocess "
            "inside"
        )
    args = preprocess["args"]
    named = args if isinstance(args, dict) else dict(zip(("mean", "std"), args, strict=False))
    check_arguments(normalize, named, f"{path}: preprocess", given=("pixels",))
    for name, value in named.items():
        values = value if isinstance(value, list) else [value]
        numbers = [one for one in values if isinstance(one, int | float) and abs(one) < MOST]
        if len(numbers) != len(values) or len(values) not in (1, channels):
            raise UserError(
                f"{path}: preprocess.args.{name}: expected a number, or one for each of the "
                f"{channels} channels, got {printable(repr(value)[:60])}"
            )
    return named
