"""The demo's page and its answers: an export's files, side by side."""

import base64
import contextlib
import functools
import io
import secrets
import statistics
import sys
import time
from collections import deque
from pathlib import Path
from threading import Lock

import jinja2
import numpy as np

from data_loader.images import open_image, read_image, shown_size
from inference.serving.classifier import load
from inference.serving.drawing import fit, takes_drawings, trace
from inference.serving.exports import find_export
from utils import UserError

HERE = Path(__file__).resolve().parent  # of the page's template, style and script
SIDE = 224  # pixels of a drawing's side, as the page sends it
LARGEST_UPLOAD = 2**24  # bytes
MAX_PIXELS = 10_000_000  # a small file may hold a huge image; a pixel takes up to 20 bytes
SMALL = 2**18  # pixels of an image that no other delays much
MAX_PIXELS_JPEG = 2**26  # unless progressive: it is decoded at a half, a quarter ...
NONCE = secrets.token_hex()  # stands for the nonce, which is new for each answer
SHOWN = 12  # classes; of more, the likeliest are shown
RECENT = 25  # calls whose median time is shown
RUNTIMES = {".onnx": "ONNX", ".tflite": "TFLite", ".stablehlo": "JAX"}
LIKE_MNIST = "fitted and centred like a digit of MNIST"


class Demo:
    """An export in use: its files, the page, and the answers to drawings and images.

    Args:
        name: as `find_export` takes it.

    Raises:
        UserError: there is no such export, or it is no classifier of images.
    """

    def __init__(self, name):
        self.files = load_files(name)
        first = self.files[0].classifier
        self.shape, self.classes = first.shape, first.classes
        self.title = first.metadata.get("title") or self.files[0].path.stem
        self.takes_drawings = takes_drawings(self.shape)

    def page(self, nonce):
        """Returns the page as HTML; scripts and styles carry the nonce."""
        return self._page.replace(NONCE, nonce)

    @functools.cached_property
    def _page(self):
        """The page with NONCE in place of a nonce."""
        return self.render(nonce=NONCE, where="on this computer only")

    def render(self, where, **more):
        """Returns the page as HTML.

        Args:
            where: the network computes, in words.
            more: of the template: `nonce`, or `static` for the page without a server.
        """
        environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True)
        return environment.get_template("demo.html.jinja").render(
            demo=self,
            facts=self._facts(where),
            digits=all(name.isdigit() and len(name) == 1 for name in self.classes),
            rows=min(len(self.classes), SHOWN),
            side=SIDE,
            limit=LARGEST_UPLOAD,
            recent=RECENT,
            **more,
        )

    def _facts(self, where):
        """The facts below the title: the run, its size, the files."""
        metadata = self.files[0].classifier.metadata
        facts = [f"Run {metadata['run']}"] if metadata.get("run") else []
        if metadata.get("parameters"):
            facts.append(f"{metadata['parameters']:,} parameters")
        names = " and ".join(file.path.name for file in self.files)
        return [*facts, f"{names}, {where}"]

    def answer_drawing(self, content):
        """Returns the answer to a drawing: SIDE x SIDE bytes of ink, 0 where nothing is drawn."""
        if len(content) != SIDE * SIDE or not self.takes_drawings:
            raise UserError(
                f"got {len(content)} bytes of a drawing; this page sends {SIDE} x {SIDE}, if the "
                "network takes drawings. Load the page again"
            )
        ink = np.frombuffer(content, np.uint8).reshape(SIDE, SIDE)
        return self.answer(fit(ink, self.shape[1])[None], LIKE_MNIST)

    @staticmethod
    def is_small(content, name):
        """Whether the bytes of an image file are decoded in milliseconds."""
        with (
            contextlib.suppress(UserError),
            open_image(Upload(content, name), MAX_PIXELS_JPEG) as image,
        ):
            return image.width * image.height <= SMALL
        return False

    def answer_image(self, content, name, small=False):
        """Returns the answer to the bytes of an image file; the name is for messages."""
        # Pillow has one limit for all threads: a small image does not lower that of a large one.
        size, most = self.shape[1:], MAX_PIXELS_JPEG if small else _max_pixels(content, name)
        pixels = self.files[0].classifier.read(Upload(content, name), most)
        with open_image(Upload(content, name), most) as image:
            height, width = shown_size(image)
        if (height, width) == size:
            return self.answer(pixels, "as it is in the file")
        if not self.takes_drawings:
            return self.answer(pixels, f"resized from {width} × {height}")
        scale = SIDE / max(width, height)
        reduced = tuple(max(1, round(scale * side)) for side in (height, width))
        grey = read_image(Upload(content, name), reduced, "L", max_pixels=most)[0]
        prepared = f"what stands out from its edge, {LIKE_MNIST}"
        return self.answer(fit(trace(grey), size[0])[None], prepared)

    def answer(self, pixels, prepared):
        """Returns what the page shows for an image, as a dict of JSON values.

        Args:
            pixels: (channels, height, width) uint8.
            prepared: how the pixels were made, in words.
        """
        probabilities = [file.classify(pixels) for file in self.files]
        for file, one in zip(self.files, probabilities, strict=True):
            if not np.isfinite(one).all():
                raise UserError(f"{file.path.name} answers NaN: the network diverged in training")
        order = np.arange(len(self.classes))
        if len(order) > SHOWN:
            order = np.argsort(-probabilities[0], kind="stable")[:SHOWN]
        answers = [
            {
                "name": file.name,
                "milliseconds": file.milliseconds,
                "best": self.classes[one.argmax()],
                "probability": one.max(),
                "shown": one[order].tolist(),
            }
            for file, one in zip(self.files, probabilities, strict=True)
        ]
        return {
            "pixels": base64.b64encode(pixels).decode(),
            "prepared": prepared,
            "classes": [self.classes[index] for index in order],
            "answers": answers,
        }


class File:
    """An exported file in its runtime, with the times of its latest calls."""

    def __init__(self, path):
        self.path, self.name = path, RUNTIMES[path.suffix]
        self.classifier = load(path, threads=1)  # more are no faster for one image, but compete
        if self.classifier.kind == "none" or self.classifier.is_mask:
            what = "masks" if self.classifier.is_mask else "values"
            raise UserError(
                f"{path}: gives {what}; the demo shows probabilities of classes and labels. For "
                f"{what}: python inference/predict.py --name {path} PICTURE"
            )
        self._seconds, self._lock = deque(maxlen=RECENT), Lock()  # LiteRT takes one call at a time
        self.classify(np.zeros(self.classifier.shape, np.uint8))  # the first call is slow
        self._seconds.clear()

    def classify(self, pixels):
        """Returns the (classes,) probabilities of a (channels, height, width) uint8 image."""
        batch = np.repeat(pixels[None], self.classifier.batch or 1, axis=0)
        with self._lock:
            start = time.perf_counter()
            logits = self.classifier.run(batch)
            self._seconds.append(time.perf_counter() - start)
        return self.classifier.probabilities(logits[0])

    @property
    def milliseconds(self):
        """The median time of the latest calls."""
        return 1000 * statistics.median(self._seconds)


class Upload(io.BytesIO):
    """A file's content, with the name that messages show."""

    def __init__(self, content, name):
        super().__init__(content)
        self._name = name

    def __repr__(self):  # Pillow's messages use it too
        return self._name


def _max_pixels(content, name):
    """How many pixels are decoded of a file, which bounds the memory."""
    if not content.startswith(b"\xff\xd8\xff"):
        return MAX_PIXELS
    with open_image(Upload(content, name), MAX_PIXELS_JPEG) as image:
        return MAX_PIXELS if image.info.get("progressive") else MAX_PIXELS_JPEG


def load_files(name):
    """Returns the Files of an export: ONNX and TFLite, or the single file that is named.

    A file that cannot be loaded is left out with a warning; without any, its error is raised.
    """
    runtimes = [None] if Path(name).is_file() else ["onnx", "tflite"]
    files, faults = [], []
    for runtime in runtimes:
        try:
            files.append(File(find_export(name, runtime)))
        except UserError as error:
            faults.append(error)
    if not files:
        raise faults[0]
    for error in faults:
        print(f"warning: {error}. The demo continues without it", file=sys.stderr)
    return files
