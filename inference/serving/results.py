"""What a person reads of an exported network's answer: words on a line, cells of a CSV, a mask."""

from pathlib import Path

import numpy as np
from PIL import Image

from data_loader.locked_files import remove_abandoned, whole_file
from data_loader.masks import mask_image, mask_of, overlay
from utils import UserError, csv_text, printable

SHOWN = 8  # numbers of one output on a line
MOST_VALUES = 1000  # of a picture, as columns of a CSV


def words(classifier, result, top, threshold):
    """Returns a result as texts for a line: classes or labels with probabilities, or values."""
    if classifier.kind == "none":
        return _value_words(classifier, result)
    names = [printable(name) for name in classifier.classes]
    widest = max(map(len, names))
    order = np.argsort(-result, kind="stable")
    if classifier.kind == "sigmoid":
        order = order[result[order] >= threshold]
        if not order.size:
            return [f"no label of {threshold:.0%} or more"]
    else:
        order = order[:top]
    return [f"{names[index]:<{widest}} {result[index]:7.2%}" for index in order]


def columns(classifier, result, threshold):
    """Returns {column: cell} of a result for a CSV.

    Of classes and labels prediction, and p_<name> of each one; of labels the prediction has all of
    at least the threshold. Of values a column for each.
    """
    if classifier.kind == "none":
        values = [(csv_text(name), f"{one:.6g}") for name, one in _values(classifier, result)]
        if len(values) > MOST_VALUES:
            raise UserError(
                f"{len(values):,} values of a picture are too many for a CSV, which has at most "
                f"{MOST_VALUES:,}; call inference.verify.runtimes.load and its run"
            )
        return dict(values)
    texts, names = [f"{one:.6g}" for one in result], list(map(csv_text, classifier.classes))
    shown = [(f"p_{printable(name)}", text) for name, text in zip(names, texts, strict=True)]
    if classifier.kind == "softmax":
        guess = result.argmax()
        return dict([("prediction", names[guess]), ("probability", texts[guess]), *shown])
    above = [names[index] for index in np.flatnonzero(result >= threshold)]
    return dict([("prediction", "; ".join(above)), *shown])


class MaskFolder:
    """A folder of masks: for each picture <name>.png, whose pixels are the numbers of classes.

    Args:
        path: of the folder, which is made.
        overlays: write <name>.overlay.png as well, the colours over the picture.
    """

    def __init__(self, path, overlays=False):
        self.path, self._overlays, self._taken = Path(path), overlays, {}

    def write(self, classifier, picture, image, result, threshold):
        """Writes a picture's mask; returns texts for a line: the file, each class's share."""
        names = [printable(name) for name in classifier.classes]
        if classifier.kind == "sigmoid":
            names = ["none", *names]
        if len(names) > 256:
            raise UserError(f"a mask of {len(names)} classes: a picture has at most 256")
        mask = mask_of(result, classifier.kind, classifier.shape[1:], threshold)
        stem = printable(Path(picture).stem).replace("/", "_")
        again = self._taken[stem] = self._taken.get(stem, 0) + 1
        file = self.path / (f"{stem}.png" if again == 1 else f"{stem}.{again}.png")
        try:
            if len(self._taken) == again == 1:  # of the first picture
                self.path.mkdir(parents=True, exist_ok=True)
                remove_abandoned(self.path, r".+\.png")
            _save(mask_image(mask), file)
            if self._overlays:
                _save(Image.fromarray(overlay(image, mask)), file.with_suffix(".overlay.png"))
        except OSError as error:
            raise UserError(f"{printable(file)}: cannot be written: {error.strerror}") from None
        shares = np.bincount(mask.reshape(-1), minlength=len(names)) / mask.size
        order = [index for index in np.argsort(-shares, kind="stable") if shares[index]]
        return [printable(file), *(f"{names[index]} {shares[index]:.1%}" for index in order)]


def _save(image, path):
    """Saves a PNG."""
    with whole_file(path) as file:
        image.save(file, "PNG")


def _values(classifier, result):
    """(name, number) of every value that a network gives for a picture."""
    names, found = classifier.classes, []
    for output, array in result.items():
        flat = np.asarray(array).reshape(-1)
        if len(result) == 1 and len(names) == len(flat):
            found += zip(names, flat.tolist(), strict=True)
        elif np.ndim(array) == 0:
            found.append((output, flat.item()))
        else:
            found += [(f"{output}_{index}", one) for index, one in enumerate(flat.tolist())]
    return found


def _value_words(classifier, result):
    """The values by their names; of an output with many the first ones and the shape."""
    if len(result) == 1 and classifier.classes:
        return [f"{printable(name)} {one:.6g}" for name, one in _values(classifier, result)[:SHOWN]]
    texts = []
    for output, array in result.items():
        flat = np.asarray(array).reshape(-1)
        more = f" ... {np.shape(array)}" if flat.size > SHOWN else ""
        numbers = " ".join(f"{one:.6g}" for one in flat[:SHOWN].tolist())
        texts.append(f"{printable(output)} {numbers}{more}")
    return texts
