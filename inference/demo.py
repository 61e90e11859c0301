"""Shows in the browser what an exported network makes of a digit one draws, or of a picture.

python inference/demo.py --name jax_mnist
python inference/demo.py --name jax_mnist --port 8080 --no-browser
python inference/demo.py --name inference/jax_mnist/jax_mnist.int8.tflite

The page is served to this computer alone (127.0.0.1), and needs no network. An export's ONNX and
TFLite files answer side by side, each in its own runtime and on one thread. Ctrl-C ends it.
"""

import argparse
import base64
import io
import json
import os
import secrets
import statistics
import sys
import time
import urllib.parse
import warnings
import webbrowser
from collections import deque
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `python FILE` looks beside FILE only

import jinja2
import numpy as np
from PIL import Image

from data_loader.images import read_image
from inference.predict import HOME, find_export
from inference.serving.classifier import MODES, load, softmax
from inference.serving.drawing import fit, takes_drawings, trace
from utils import UserError

ADDRESS = "127.0.0.1"
PORT = 8028
LARGEST_UPLOAD = 2**24  # bytes
SIDE = 224  # pixels of a drawing's side, as the page sends it
SHOWN = 12  # classes; of more, the likeliest are shown
RECENT = 25  # calls whose median time is shown
PATIENCE = 60  # seconds that a connection may be silent
RUNTIMES = {".onnx": "ONNX", ".tflite": "TFLite", ".stablehlo": "JAX"}
LIKE_MNIST = "fitted and centred like a digit of MNIST"
POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
    "img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def main(argv=None):
    """Runs the command line; returns the exit code."""
    options = parse_arguments(argv)
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # a small file of huge pictures
    try:
        demo = Demo(options.name)
        with listen(demo, options.port) as server:
            address = f"http://{ADDRESS}:{server.server_port}/"
            print(f"{demo.title}: draw at {address} (Ctrl-C ends it)", flush=True)
            if options.browser and has_browser():
                webbrowser.open(address)
            server.serve_forever()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe demo has ended.")
    return 0


def parse_arguments(argv):
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--name", required=True, help="an export in inference/, the path of one, or a file of it"
    )
    parser.add_argument(
        "--port", type=_port, default=PORT, help=f"of the page ({PORT}); 0 for any that is free"
    )
    parser.add_argument(
        "--no-browser", action="store_false", dest="browser", help="do not open the page"
    )
    return parser.parse_args(argv)


class Demo:
    """An export at work: its files, and what is told of it on the page.

    Args:
        name: as predict.py takes it.

    Raises:
        UserError: there is no such export, or it is of no use here.
    """

    def __init__(self, name):
        self.files = load_files(name)
        first = self.files[0].classifier
        self.shape, self.classes = first.shape, first.classes
        self.title = first.metadata.get("title") or self.files[0].path.stem
        self.drawn = takes_drawings(self.shape)

    def page(self, nonce):
        """Returns the page as HTML; scripts and styles carry the nonce."""
        environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HOME), autoescape=True)
        return environment.get_template("demo.html.jinja").render(
            demo=self,
            facts=self._facts(),
            digits=all(name.isdigit() and len(name) == 1 for name in self.classes),
            rows=min(len(self.classes), SHOWN),
            side=SIDE,
            limit=LARGEST_UPLOAD,
            recent=RECENT,
            nonce=nonce,
        )

    def _facts(self):
        """What stands below the title: the run, its size, the files."""
        metadata = self.files[0].classifier.metadata
        facts = [f"Run {metadata['run']}"] if metadata.get("run") else []
        if metadata.get("parameters"):
            facts.append(f"{metadata['parameters']:,} parameters")
        names = " and ".join(file.path.name for file in self.files)
        return [*facts, f"{names}, on this computer alone"]

    def answer_drawing(self, content):
        """Returns the answer to the canvas's ink, SIDE x SIDE bytes, 0 where nothing is drawn."""
        if len(content) != SIDE * SIDE or not self.drawn:
            raise UserError(
                f"{len(content)} bytes of a drawing came; this page sends {SIDE} x {SIDE}, if the "
                "network takes drawings. Load the page again"
            )
        ink = np.frombuffer(content, np.uint8).reshape(SIDE, SIDE)
        return self.answer(fit(ink, self.shape[1])[None], LIKE_MNIST)

    def answer_picture(self, content, name):
        """Returns the answer to a picture.

        Args:
            content: bytes of a PNG or JPEG file.
            name: of the file, for messages.
        """
        channels, *size = self.shape
        pixels = read_image(Upload(content, name), tuple(size), MODES[channels])
        with Image.open(io.BytesIO(content)) as picture:
            width, height = picture.size
        if [height, width] == size:
            return self.answer(pixels, "as it is in the file")
        if not self.drawn:
            return self.answer(pixels, f"resized from {width} × {height}")
        scale = SIDE / max(width, height)
        own = tuple(max(1, round(scale * side)) for side in (height, width))
        grey = read_image(Upload(content, name), own, "L")[0]
        prepared = f"what stands out from its edge, {LIKE_MNIST}"
        return self.answer(fit(trace(grey), size[0])[None], prepared)

    def answer(self, pixels, prepared):
        """Returns what the page shows of a picture, as JSON can hold it.

        Args:
            pixels: (channels, height, width) uint8.
            prepared: how it came to be, in words.

        Raises:
            UserError: the network's answer is not finite.
        """
        chances = [file.classify(pixels) for file in self.files]
        for file, ours in zip(self.files, chances, strict=True):
            if not np.isfinite(ours).all():
                raise UserError(f"{file.path.name} answers NaN: the network diverged in training")
        order = np.arange(len(self.classes))
        if len(order) > SHOWN:
            order = np.argsort(-chances[0], kind="stable")[:SHOWN]
        answers = [
            {
                "name": file.name,
                "milliseconds": file.milliseconds,
                "best": self.classes[ours.argmax()],
                "probability": ours.max(),
                "shown": ours[order].tolist(),
            }
            for file, ours in zip(self.files, chances, strict=True)
        ]
        return {
            "pixels": base64.b64encode(pixels).decode(),
            "prepared": prepared,
            "classes": [self.classes[index] for index in order],
            "answers": answers,
        }


class File:
    """An exported file in its runtime, and how long its latest calls took."""

    def __init__(self, path):
        self.path, self.name = path, RUNTIMES[path.suffix]
        self.classifier = load(path, threads=1)  # more are no quicker with one picture, but compete
        self._seconds, self._lock = deque(maxlen=RECENT), Lock()  # LiteRT takes one call at a time
        self.classify(np.zeros(self.classifier.shape, np.uint8))  # the first call is a slow one
        self._seconds.clear()

    def classify(self, pixels):
        """Returns the (classes,) probabilities of a (channels, height, width) uint8 picture."""
        batch = np.repeat(pixels[None], self.classifier.batch or 1, axis=0)
        with self._lock:
            began = time.perf_counter()
            logits = self.classifier.run(batch)
            self._seconds.append(time.perf_counter() - began)
        return softmax(logits[0])

    @property
    def milliseconds(self):
        """The median time of the latest calls."""
        return 1000 * statistics.median(self._seconds)


class Upload(io.BytesIO):
    """A file's content, under the name that messages call it."""

    def __init__(self, content, name):
        super().__init__(content)
        self._name = name

    def __repr__(self):  # Pillow's messages have it too
        return self._name


def load_files(name):
    """Returns the Files of an export: ONNX and TFLite, or the one that the name is.

    What cannot be loaded is told, and left out as long as there is another one.

    Raises:
        UserError: nothing can be loaded.
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
        print(f"warning: {error}. The demo goes on without it", file=sys.stderr)
    return files


def listen(demo, port):
    """Returns the server of a Demo, bound to its port.

    Raises:
        UserError: the port cannot be had.
    """
    try:
        return Server((ADDRESS, port), partial(Handler, demo))
    except OSError as error:
        raise UserError(
            f"--port {port}: {error.strerror.lower()}; name another one, or 0 for any that is free"
        ) from None


def has_browser():
    """Whether there is a browser with a window; one in the terminal would take it over."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    try:
        return bool((screen or sys.platform in ("win32", "darwin")) and webbrowser.get())
    except webbrowser.Error:
        return False


class Server(ThreadingHTTPServer):
    """A server that Ctrl-C ends at once, and to which a page that is closed is no fault."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        """Tells what went wrong in a thread, unless the other side went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Serves the page, and answers what it asks; other sites' pages and names are refused.

    A foreign page could post here (hence the look at Origin), or reach this server under a name of
    its own that leads to this computer (hence the look at Host).
    """

    protocol_version = "HTTP/1.1"  # a connection serves many strokes
    disable_nagle_algorithm = True  # which would hold answers back by 40 ms
    timeout = PATIENCE

    def __init__(self, demo, *arguments):
        self.demo = demo
        super().__init__(*arguments)

    def do_GET(self):
        """Serves the page."""
        if self._is_foreign():
            return
        if urllib.parse.urlsplit(self.path).path != "/":
            self._refuse(404, f"{self.path}: there is nothing here; the demo is at /")
            return
        nonce = secrets.token_urlsafe()
        page = self.demo.page(nonce).encode()
        self._send(200, "text/html; charset=utf-8", page, POLICY.format(nonce))

    def do_POST(self):
        """Answers a drawing or a picture."""
        content = None if self._is_foreign() else self._read()
        if content is None:
            return
        url = urllib.parse.urlsplit(self.path)
        try:
            if url.path == "/drawing":
                answer = self.demo.answer_drawing(content)
            elif url.path == "/picture":
                names = urllib.parse.parse_qs(url.query).get("name", ["the picture"])
                answer = self.demo.answer_picture(content, names[0])
            else:
                self._refuse(404, f"{self.path}: nothing answers here; /drawing and /picture do")
                return
        except UserError as error:
            self._refuse(400, str(error))
            return
        self._send(200, "application/json", json.dumps(answer).encode())

    def log_message(self, *_):
        """Keeps every stroke from being told on the console."""

    def _is_foreign(self):
        """Whether a request is not from this page or its user; then it is refused."""
        port = self.server.server_port
        hosts = [f"{name}:{port}".removesuffix(":80") for name in (ADDRESS, "localhost")]
        host, origin = self.headers["Host"], self.headers["Origin"]
        if host in hosts and origin in (None, f"http://{host}"):
            return False
        self._refuse(403, f"only http://{hosts[0]}/ and its page may ask here", close=True)
        return True

    def _read(self):
        """The body; None, and the request is refused, if it is too large or its size unknown."""
        length = self.headers["Content-Length"] or ""
        if not (length.isascii() and length.isdigit()):
            self._refuse(411, "how many bytes come is not said (Content-Length)", close=True)
        elif int(length) > LARGEST_UPLOAD:
            most = f"{LARGEST_UPLOAD // 2**20} MiB"
            self._refuse(413, f"{int(length):,} bytes came; expected at most {most}", close=True)
        else:
            return self.rfile.read(int(length))
        return None

    def _refuse(self, status, message, close=False):
        self.close_connection |= close  # of an unread body the rest would pass for a request
        self._send(status, "application/json", json.dumps({"error": message}).encode())

    def _send(self, status, kind, content, policy="default-src 'none'"):
        headers = {
            "Content-Type": kind,
            "Content-Length": len(content),
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        if self.close_connection:
            headers["Connection"] = "close"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)


def _port(text):
    number = int(text)
    if not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(f"expected 0 to {2**16 - 1}, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
