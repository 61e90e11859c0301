"""What callbacks recorded in a run folder: the images and texts that its report shows."""

import contextlib

from PIL import Image

from training.report.images import data_uri_of
from training.tracking.media import read_media

NAMES = 12  # of images, and of texts, that are shown
IMAGES = 3  # of a name: the first, one in the middle, and the last


def recorded(run):
    """Returns {"images": {name: [(step, data URI), ...]}, "texts": {name: (step, text)}} of a run.

    Of a text's name the last is shown.
    """
    images, texts = {}, {}
    for line in read_media(run):
        if line["kind"] == "image":
            images.setdefault(line["name"], {})[line["step"]] = run / line["file"]
        elif line["kind"] == "text":
            texts[line["name"]] = line["step"], line["text"]
    shown = {name: list(_shown(files)) for name, files in list(images.items())[:NAMES]}
    return {"images": shown, "texts": dict(list(texts.items())[:NAMES])}


def _shown(files):
    """Yields the step and the data URI of some of {step: path}."""
    steps = sorted(files)
    for step in sorted({steps[0], steps[len(steps) // 2], steps[-1]}):
        with (
            contextlib.suppress(OSError, SyntaxError, ValueError),
            Image.open(files[step]) as image,
        ):
            yield step, data_uri_of(image.convert("RGB" if image.mode != "L" else "L"))
